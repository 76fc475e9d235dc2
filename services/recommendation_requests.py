"""What recommendations can be asked for: the bodies and query parameters of their routes."""

from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from feature_repo.event_fields import Category, Id
from feature_repo.events import EventItem
from services.recommend.rules import Among, Explore, Range, Repeat, Rules

_Price = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]
_Share = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Query(ge=1, le=500)]
Placement = Annotated[
    str | None,
    Query(min_length=1, max_length=128, description="Chooses the rules, and logs the impression"),
]
Exclude = Annotated[
    str | None,
    Query(max_length=65_536, description="`purchased`, `seen`, or item ids, comma-separated"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionEvent(_Body):
    """One event of a session that is not stored."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "view_item"
    items: Annotated[list[EventItem], Field(max_length=200)]


class Session(_Body):
    """What a visitor did so far, and what is wanted.

    With ``user_id`` the events stand on top of what is known of that user.
    """

    user_id: Id | None = None
    events: Annotated[list[SessionEvent], Field(max_length=200)] = []
    n: Annotated[int, Field(ge=1, le=500)] = 10
    exclude: Annotated[list[Id], Field(max_length=1000)] = []
    category: Category | None = None
    placement: Id | None = None
    rules: Rules | None = None
    explain: bool = False


class RankItem(_Body):
    """An item to be ranked."""

    item_id: Id


class RankRequest(_Body):
    """Items to be put into a user's order."""

    user_id: Id
    items: Annotated[list[Id | RankItem], Field(min_length=1, max_length=1000)]
    explain: bool = False


class Demands:
    """Rules given as query parameters; those left out stay the placement's.

    Raises
    ------
    pydantic.ValidationError
        If two of them disagree.
    """

    def __init__(
        self,
        brand: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
        min_price: _Price = None,
        max_price: _Price = None,
        in_stock: bool | None = None,
        repeat: bool | None = None,
        max_age_days: Annotated[float | None, Query(gt=0, le=100_000, allow_inf_nan=False)] = None,
        diversity: _Share = None,
        explore: _Share = None,
        new_items: Annotated[int | None, Query(ge=0, le=500)] = None,
    ) -> None:
        self._given: Final = {
            "brand": brand, "price": (min_price, max_price), "in_stock": in_stock,
            "repeat": repeat, "max_age_days": max_age_days, "diversity": diversity,
            "explore": explore, "new_items": new_items,
        }  # fmt: skip

    def rules(self) -> Rules | None:
        """Return the rules that are given, None without any."""
        given: dict[str, Any] = {
            name: value
            for name, value in self._given.items()
            if value is not None and value != (None, None)
        }
        if not given:
            return None
        if "brand" in given:
            given["brand"] = Among(within=[given["brand"]])
        if "price" in given:
            low, high = given["price"]
            given["price"] = Range(min=low, max=high)
        if "repeat" in given:
            given["repeat"] = Repeat(allowed=given["repeat"])
        if "explore" in given:
            given["explore"] = Explore(share=given["explore"])
        return Rules(**given)
