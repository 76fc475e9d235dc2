"""The item schema: what the shop says about a thing it offers."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from feature_repo.events import (
    Amount,
    Category,
    Currency,
    Id,
    LongText,
    Text,
    parse_time,
    check_properties,
)


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
    properties: dict[str, Any] | None = None

    @field_validator("properties")
    @classmethod
    def _properties(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else check_properties(value)
