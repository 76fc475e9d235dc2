"""The item schema: what the shop says about a thing it offers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    StringConstraints,
    WrapValidator,
    field_validator,
)

from feature_repo.archive.event_archive import write_part
from feature_repo.events.fields import (
    Amount,
    Category,
    Currency,
    Id,
    LongText,
    Text,
    check_properties,
    parse_time,
)

SCHEMA: Final = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("in_stock", pa.bool_()),
        ("available_from", pa.int64()),
        ("is_merchandise", pa.bool_()),
        ("properties", pa.string()),
    ]
)
"""Columns of a catalogue part: those of `Item`; ``properties`` as JSON text."""


MAX_DESCRIPTION: Final = 8192
"""Letters of an item's description."""
MAX_NUMBERS: Final = 1024
"""Of an item's vector."""
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e30, le=1e30)]
_Numbers = Annotated[list[_Number], Field(min_length=1, max_length=MAX_NUMBERS)]


def pack_vector(numbers: Sequence[float]) -> bytes:
    """Return numbers as an item keeps them: float32, little endian."""
    return np.asarray(numbers, "<f4").tobytes()


def unpack_vector(data: bytes) -> list[float]:
    """Return the numbers of a vector, each the shortest that is the same float32.

    Examples
    --------
    >>> unpack_vector(pack_vector([0.1, -2]))
    [0.1, -2.0]
    """
    return [float(str(number)) for number in np.frombuffer(data, "<f4")]


def _pack(value: Any, read: Any) -> bytes:
    return value if isinstance(value, bytes) else pack_vector(read(value))


Vector = Annotated[
    bytes,
    GetPydanticSchema(
        lambda _, handler: handler.generate_schema(Annotated[_Numbers, WrapValidator(_pack)])
    ),
]
"""Numbers, kept as `pack_vector` makes them."""


class Item(BaseModel):
    """One catalogue entry.

    ``is_merchandise`` is False for lines that are no interest of anyone's (coupons, fuel,
    fees); such items are kept out of interests and recommendations.

    Examples
    --------
    >>> Item(item_id="A", title="Coffee", category="Grocery/Coffee").in_stock
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: Id
    title: LongText | None = None
    category: Category | None = None
    brand: Text | None = None
    price: Amount | None = None
    currency: Currency | None = None
    in_stock: bool = True
    available_from: Annotated[int, BeforeValidator(parse_time)] | None = Field(
        default=None,
        description="RFC 3339 with offset, or epoch seconds or milliseconds",
        json_schema_extra={"type": ["string", "number", "null"]},
    )
    is_merchandise: bool = True
    description: Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION)] | None = None
    vector: Vector | None = Field(
        default=None, description="What the item is about, in numbers; all items have as many"
    )
    properties: dict[str, Any] | None = None

    @field_validator("properties")
    @classmethod
    def _properties(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else check_properties(value)


def merge_patch(item: Item, patch: Mapping[str, Any]) -> Item:
    """Return an item with the named fields changed: a JSON merge patch (RFC 7396).

    Parameters
    ----------
    patch
        New values by field; None takes a field away, objects are merged.

    Raises
    ------
    pydantic.ValidationError
        If what comes out is no item.

    Examples
    --------
    >>> tea = Item(item_id="A", title="Tea", properties={"organic": True, "origin": "Assam"})
    >>> new = merge_patch(tea, {"price": 3, "title": None, "properties": {"origin": "Ceylon"}})
    >>> new.price, new.title, new.properties
    (3.0, None, {'organic': True, 'origin': 'Ceylon'})
    """
    return Item.model_validate(_merge(item.model_dump(exclude_none=True), patch, _MAX_MERGED))


_MAX_MERGED: Final = 8
"""Levels that are merged: more than an item may have."""


def _merge(value: Any, patch: Any, levels: int) -> Any:
    if not isinstance(patch, Mapping) or levels == 0:
        return patch
    merged = dict(value) if isinstance(value, Mapping) else {}
    for name, new in patch.items():
        if new is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), new, levels - 1)
    return merged


def write_catalogue(path: Path, items: Sequence[Item]) -> None:
    """Write items as one Parquet part (``archive/items/<source>.parquet``); replaces the whole."""
    rows = [
        {
            **item.model_dump(exclude={"properties"}),
            **{name: None for name in _FLAGS if name not in item.model_fields_set},
            "properties": None
            if item.properties is None
            else orjson.dumps(item.properties).decode(),
        }
        for item in items
    ]
    write_part(path, pa.Table.from_pylist(rows, schema=SCHEMA))


def load_catalogue(home: Path) -> dict[str, Item]:
    """Return the catalogue below ``home``, item id to item; empty when there is none.

    Of an item that several parts name, the part last by name counts; what it does not
    state, the part before it does.
    """
    items = dict[str, Item]()
    parts = (home / "archive" / "items").glob("*.parquet")
    for part in sorted(parts, key=lambda part: part.stem):
        for row in pq.read_table(part).to_pylist():
            properties = row.pop("properties")
            row["properties"] = None if properties is None else orjson.loads(properties)
            item = Item.model_validate({n: v for n, v in row.items() if v is not None})
            items[item.item_id] = complete_item(item, items.get(item.item_id))
    return items


def complete_item(item: Item, older: Item | None) -> Item:
    """Return an item with what it does not state taken from an older statement about it.

    A price and its currency are one statement.

    Examples
    --------
    >>> new = complete_item(Item(item_id="A", title="Tea"), Item(item_id="A", brand="B", price=2))
    >>> new.title, new.brand, new.price
    ('Tea', 'B', 2.0)
    """
    if older is None:
        return item
    lacking = [n for n in _OPTIONAL if getattr(item, n) is None and getattr(older, n) is not None]
    lacking += [n for n in _FLAGS if n in older.model_fields_set - item.model_fields_set]
    told = {name: getattr(older, name) for name in lacking}
    if item.price is None and older.price is not None:
        told |= {"price": older.price, "currency": older.currency}
    return item.model_copy(update=told) if told else item


_OPTIONAL: Final = ("title", "category", "brand", "available_from", "properties")
"""Fields, besides the price, of which an item may say nothing."""
_FLAGS: Final = ("in_stock", "is_merchandise")
"""Fields that hold even where nothing says so; a part has nulls for what its file does not say."""
