"""Tables: any CSV, Parquet or NDJSON file, read through a mapping, as lines.

Belongs here: reading in chunks, conversion of cells, and NDJSON in the API's own event form.
Not here: what the mapping may say (`mapping`), judging lines (`lines`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from feature_repo.catalogue import Item
from feature_repo.errors import InvalidSourceError
from feature_repo.events import ORDER_TYPES
from feature_repo.importers.assemble import GROUP_MARK
from feature_repo.importers.cells import flags, numbers, texts, times_ms
from feature_repo.importers.lines import MARK
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.source import Chunk, Source, hashed_ids

CHUNK_ROWS: Final = 1_000_000
_FORMATS: Final = {
    ".csv": "csv", ".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson",
}  # fmt: skip
_TEXTS: Final = (
    "user_id", "anonymous_id", "session_id", "order_id", "item_id", "category", "brand",
    "variant", "currency", "query", "url", "device", "channel", "coupon", "campaign_id",
)  # fmt: skip
_NUMBERS: Final = ("quantity", "price", "discount", "rating", "value")


def open_table(path: Path, mapping: Mapping) -> Source:
    """Open a file through a mapping.

    Parameters
    ----------
    path
        CSV, Parquet or NDJSON file (``.csv``, ``.parquet``, ``.ndjson``, ``.jsonl``).
    mapping
        What its columns mean.

    Raises
    ------
    InvalidSourceError
        If the file is missing, of another format, or lacks a column that the mapping names.
    """
    catalogue = _Catalogue(mapping)

    def chunks() -> Iterator[Chunk]:
        readable_times = False
        for number, raw in enumerate(_read(path, mapping)):
            _require(raw, path, mapping)
            lines = to_lines(raw, mapping)
            readable_times = readable_times or lines.empty or bool(lines["time_ms"].notna().any())
            if number == 0 and not readable_times:
                raise InvalidSourceError(
                    f"{path}: no value of column {mapping.columns.time!r} can be read as a time "
                    f"(first: {str(raw[mapping.columns.time].iloc[0])[:40]!r}): "
                    "set time_unit to s, ms or iso"
                )
            catalogue.add(raw, lines)
            yield Chunk(raw, lines)

    _check_file(path)
    return Source(mapping.source, _key(mapping.source, path), 0, chunks(), catalogue.items)


def open_events(path: Path) -> Source:
    """Open NDJSON that already has the API's event form, one event a line."""
    _check_file(path)
    if _format(path, None) != "ndjson":
        raise InvalidSourceError(f"{path} needs --mapping: only NDJSON may go without one")
    rows = [line for line in path.read_bytes().splitlines() if line.strip()]
    raw = pd.DataFrame({"line": [line.decode("utf-8", "replace") for line in rows]})
    made, refused = [], []
    for row, line in enumerate(rows):
        try:
            body = orjson.loads(line)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            refused.append((row, "malformed_json"))
            continue
        body.setdefault("source", "file")
        if body.get("id") is None:
            digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
            body["id"] = f"file-{digest[:32]}"
        made.append((body, [row]))
    chunk = Chunk(raw, pd.DataFrame(), made, refused)
    return Source("file", _key("file", path), len(rows), [chunk])


def _key(source: str, path: Path) -> str:
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in path.stem)[:64]
    return source if source == stem else f"{source}-{stem}"


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidSourceError(f"{path} does not exist or is no file: check the path")


def _format(path: Path, stated: str | None) -> str:
    found = stated or _FORMATS.get(path.suffix.lower())
    if found is None:
        raise InvalidSourceError(
            f"{path.name} ends in none of {', '.join(_FORMATS)}: set format in the mapping"
        )
    return found


def _read(path: Path, mapping: Mapping) -> Iterator[pd.DataFrame]:
    """Yield the rows, indexed by row number.

    Lines of an order must not be torn apart: a file with an order column is one chunk.
    """
    whole = mapping.columns.order_id is not None or mapping.columns.id is not None
    kind = _format(path, mapping.format)
    try:
        if kind == "csv":
            reader = pd.read_csv(
                path, dtype=str, sep=mapping.delimiter, keep_default_na=False,
                names=mapping.header, header=None if mapping.header else 0,
                chunksize=None if whole else CHUNK_ROWS, index_col=False,
                engine="python" if _has_lone_returns(path) else "c",
            )  # fmt: skip
            yield from [reader] if isinstance(reader, pd.DataFrame) else reader
        elif kind == "parquet":
            yield pq.read_table(path).to_pandas()
        else:
            rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            yield pd.json_normalize(rows)
    except pd.errors.EmptyDataError:
        raise InvalidSourceError(f"{path} is empty: it needs at least a header line") from None
    except (pd.errors.ParserError, UnicodeDecodeError, pa.ArrowInvalid, ValueError) as error:
        detail = str(error).splitlines()[0][:160]
        raise InvalidSourceError(f"{path} cannot be read as {kind}: {detail}") from None


def _has_lone_returns(path: Path) -> bool:
    """Say whether a carriage return stands without its line feed: pandas' C parser may fail there.

    Both parsers end a line at it.
    """
    returns = pairs = 0
    before = b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            returns += block.count(b"\r")
            pairs += (before + block).count(b"\r\n")
            before = block[-1:]
    return returns > pairs


def _require(raw: pd.DataFrame, path: Path, mapping: Mapping) -> None:
    for field, column in mapping.columns.model_dump(exclude_none=True).items():
        if column not in raw:
            raise InvalidSourceError(
                f"{path.name} lacks the column {column!r} (mapped to {field}); "
                f"it has: {', '.join(map(str, raw.columns))}"
            )


def to_lines(raw: pd.DataFrame, mapping: Mapping) -> pd.DataFrame:
    """Return the rows of a table as lines.

    Parameters
    ----------
    raw
        Rows as read; the index is the source row.
    mapping
        What the columns mean.
    """
    columns = mapping.columns
    lines = pd.DataFrame({"source_row": np.asarray(raw.index, dtype=np.int64)})
    mark = np.full(len(raw), "", dtype=object)
    lines["time_ms"] = times_ms(raw[columns.time], mapping.time_unit, mapping.time_zone)
    for field in _TEXTS:
        column = getattr(columns, field)
        if column is not None:
            lines[field] = texts(raw[column])
    for field in _NUMBERS:
        column = getattr(columns, field)
        if column is not None:
            lines[field], broken = numbers(raw[column])
            mark[(mark == "") & broken] = "unreadable_number"
    for field in ("currency", "channel"):
        if getattr(mapping, field) is not None and field not in lines:
            lines[field] = getattr(mapping, field)
    if columns.is_merchandise is not None:
        mark[(mark == "") & ~flags(raw[columns.is_merchandise])] = "non_merchandise"
    _set_types(lines, raw, mapping, mark)
    _set_orders(lines, mapping)
    _set_ids(lines, raw, mapping)
    lines[MARK] = mark
    return lines


def _set_types(
    lines: pd.DataFrame, raw: pd.DataFrame, mapping: Mapping, mark: "np.ndarray[Any, Any]"
) -> None:
    if mapping.columns.type is None:
        lines["type"] = mapping.default_type
    else:
        stated = texts(raw[mapping.columns.type])
        mark[(mark == "") & stated.isin(mapping.ignore_types).to_numpy()] = "other_type"
        if mapping.types is None:
            legal = stated.str.fullmatch(r"[a-z][a-z0-9_]{0,63}").fillna(value=False).astype(bool)
            lines["type"] = stated.where(legal, None)
        else:
            lines["type"] = stated.map(mapping.types).astype(object)
    if mapping.negative_quantity == "refund" and "quantity" in lines:
        back = lines["type"].isin(ORDER_TYPES) & (lines["quantity"] < 0)
        lines.loc[back, "type"] = "refund"
        lines.loc[back, "quantity"] = -lines.loc[back, "quantity"]


def _set_orders(lines: pd.DataFrame, mapping: Mapping) -> None:
    if mapping.orders == "user_time":
        made = lines["time_ms"].astype("string") + "-{user}"
        lines["order_id"] = made.where(lines["type"].isin(ORDER_TYPES)).astype(object)


def _set_ids(lines: pd.DataFrame, raw: pd.DataFrame, mapping: Mapping) -> None:
    """Give every line its event's id. ``{user}`` in it becomes the pseudonym when published."""
    prefix = f"{mapping.source}-"
    told = [
        c for c in lines.columns
        if c not in {"source_row", "time_ms", "user_id", "anonymous_id", MARK}
    ]  # fmt: skip
    own = hashed_ids(prefix, lines, told)
    if mapping.columns.order_id is not None:
        ordered = lines["type"].isin(ORDER_TYPES) & lines["order_id"].notna()
        order = prefix + lines["type"].astype(str) + "-" + lines["order_id"].astype(str) + "-{user}"
        own = own.where(~ordered, order)
    # Two users doing the same at the same moment are two events; the id hides who they are.
    own = own + GROUP_MARK + _users(lines)
    if mapping.columns.id is not None:
        stated = texts(raw[mapping.columns.id])
        own = stated.where(stated.notna(), own).astype(object)
    lines["event_id"] = own.astype(object)


def _users(lines: pd.DataFrame) -> "pd.Series[Any]":
    who = lines["user_id"] if "user_id" in lines else lines["anonymous_id"]
    return who.fillna("").astype(str)


class _Catalogue:
    """Collects what a file says about its items: last title, category and brand, median price."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._seen = list[pd.DataFrame]()

    def add(self, raw: pd.DataFrame, lines: pd.DataFrame) -> None:
        """Note the items of one chunk."""
        told = [c for c in ("category", "brand") if c in lines]
        title = self._mapping.columns.title
        if "item_id" not in lines or not (told or title):
            return
        frame = lines[["item_id", *told, *(c for c in ("price", MARK) if c in lines)]].copy()
        frame["title"] = None if title is None else texts(raw[title]).to_numpy()
        frame["aside"] = frame.pop(MARK) == "non_merchandise"
        if "price" not in frame:
            frame["price"] = np.nan
        frame["price"] = frame["price"].where(frame["price"] > 0)
        for column in ("category", "brand"):
            if column not in frame:
                frame[column] = None
        grouped = frame[frame["item_id"].notna()].groupby("item_id", sort=True)
        self._seen.append(
            grouped.agg(
                title=("title", "last"), category=("category", "last"), brand=("brand", "last"),
                price=("price", "median"), aside=("aside", "all"),
            ).reset_index()
        )  # fmt: skip

    def items(self) -> Sequence[Item]:
        """Return the items noted; one that the item schema refuses is left out."""
        made = dict[str, Item]()
        for frame in self._seen:
            for item_id, title, category, brand, price, aside in frame.itertuples(index=False):
                body = {
                    "item_id": item_id, "title": title, "category": category, "brand": brand,
                    "price": None if pd.isna(price) else round(float(price), 2),
                    "currency": self._mapping.currency, "is_merchandise": not aside,
                }  # fmt: skip
                try:
                    made[item_id] = Item.model_validate(
                        {k: v for k, v in body.items() if v is not None}
                    )
                except ValidationError:
                    continue
        return list(made.values())
