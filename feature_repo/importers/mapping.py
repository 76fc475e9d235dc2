"""The mapping: a YAML file that says which column of a table is which field of an event.

Belongs here: its schema, its defaults, and precise errors about it. Not here: reading the
table it describes (`tabular`).
"""

import codecs
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from feature_repo.errors import InvalidSourceError
from feature_repo.events.fields import Currency
from feature_repo.events.schema import problems

EventType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Column = Annotated[str, StringConstraints(min_length=1)]

NULL_WORDS: Final = ("NULL", "null", "Null", r"\N", "NaN", "nan", "None", "NA", "N/A", "#N/A",
                     "<NA>", "NaT")  # fmt: skip
"""What databases, R, spreadsheets and pandas write for an empty cell."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Columns(BaseModel):
    """Event field → column of the file. Only ``time`` and one user column are required."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: Column
    user_id: Column | None = None
    anonymous_id: Column | None = None
    id: Column | None = None
    type: Column | None = None
    session_id: Column | None = None
    order_id: Column | None = None
    item_id: Column | None = None
    quantity: Column | None = None
    price: Column | None = None
    discount: Column | None = None
    category: Column | None = None
    brand: Column | None = None
    variant: Column | None = None
    title: Column | None = None
    currency: Column | None = None
    query: Column | None = None
    url: Column | None = None
    device: Column | None = None
    channel: Column | None = None
    coupon: Column | None = None
    campaign_id: Column | None = None
    rating: Column | None = None
    value: Column | None = None
    is_merchandise: Column | None = None

    def to_columns(self) -> dict[str, str]:
        """Return field → column of the columns that are named."""
        told: dict[str, str] = self.model_dump(exclude_none=True)
        return told

    @model_validator(mode="after")
    def _user(self) -> "Columns":
        if self.user_id is None and self.anonymous_id is None:
            raise ValueError("user_id or anonymous_id must name a column")
        return self


class Mapping(BaseModel):
    """How to read one kind of file.

    Attributes
    ----------
    source
        Name of the source; part of every event and event id.
    columns
        Event field → column.
    format
        Absent: by the file's ending.
    header
        Column names of a CSV file without a header line.
    delimiter
        Of a CSV file.
    encoding
        Of a CSV or NDJSON file.
    decimal, thousands
        Of numbers in a CSV file; without ``thousands`` there are no groups.
    null_words
        Words that stand for an empty cell.
    float_ids
        What is done with an id like ``123.0``: ``reject``, ``whole`` (123) or ``keep``.
    time_unit
        ``auto``: numbers are seconds, milli-, micro- or nanoseconds by their size, else ISO 8601.
    time_zone
        IANA zone of times without an offset.
    types
        Value in the type column → event type; None takes the values as they are.
    ignore_types
        Values in the type column whose rows are set aside.
    default_type
        Type of every row when there is no type column.
    orders
        Where a purchase's order id comes from: the column, or user and time of the row.
    negative_quantity
        ``refund`` turns a purchase with a negative quantity into a refund; ``reject`` refuses.
    currency, channel
        Constants for every event.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    columns: Columns
    format: Literal["csv", "parquet", "ndjson"] | None = None
    header: list[Column] | None = None
    delimiter: Annotated[str, StringConstraints(pattern=r'^[^\r\n"]$')] = ","
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'"] | None = None
    null_words: list[str] = Field(default_factory=lambda: list(NULL_WORDS))
    float_ids: Literal["reject", "whole", "keep"] = "reject"
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    time_zone: str = "UTC"
    types: dict[str, EventType] | None = None
    ignore_types: list[str] = Field(default_factory=list)
    default_type: EventType | None = None
    orders: Literal["column", "user_time"] = "column"
    negative_quantity: Literal["reject", "refund"] = "reject"
    currency: Annotated[Currency, BeforeValidator(_upper)] | None = None
    channel: str | None = None

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        try:
            codecs.getincrementaldecoder(value)("surrogateescape").decode("a".encode(value))
            return codecs.lookup(value).name
        except (LookupError, UnicodeError, ValueError):
            raise ValueError(
                f"{value!r} is no encoding of text such as utf-8, latin-1, cp1252 or utf-16"
            ) from None

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is one too
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _type(self) -> "Mapping":
        if (self.columns.type is None) == (self.default_type is None):
            raise ValueError("give either columns.type or default_type")
        if self.columns.type is None and (self.types or self.ignore_types):
            raise ValueError("types and ignore_types need columns.type")
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}: change one")
        if self.columns.order_id is not None and self.orders == "user_time":
            raise ValueError("orders: user_time contradicts columns.order_id: remove one")
        return self


def load_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Parameters
    ----------
    path
        YAML file.

    Raises
    ------
    InvalidSourceError
        One line that names the file, the place and what is wrong there.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidSourceError(f"{path} does not exist: give --mapping a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSourceError(f"{path} cannot be read: {type(error).__name__}") from None
    except (
        yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        # A number or a date that is none is none of YAML's own errors.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise InvalidSourceError(f"{path} is not YAML{where}") from None
    try:
        return Mapping.model_validate(body)
    except ValidationError as error:
        first = problems(error)[0]
        raise InvalidSourceError(f"{path}: {first['pointer'] or '/'}: {first['detail']}") from None
