"""Bodies and query parameters of the routes that recommend."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_repo.events.fields import Category, Id
from feature_repo.events.schema import EventItem, problems
from services.http.problems import ProblemError
from services.recommend.rules import Among, Explore, Range, Repeat, Rules

MAX_BYTES: Final = 1000 * 1000
"""Of a session that is sent along, and of a list of items to be ranked."""

_Price = Annotated[float | None, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionEvent(_Body):
    """One event of a session that is not stored."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "view_item"
    items: Annotated[list[EventItem], Field(max_length=200)]


class SessionRequest(_Body):
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
    relevance: Annotated[
        float | None,
        Field(
            strict=True, ge=-1e30, le=1e30, allow_inf_nan=False,
            description="To the query, as the search engine that found the item says",
        ),
    ] = None  # fmt: skip


class RankRequest(_Body):
    """Items to be put into a user's order; found ones with their relevance to a query."""

    user_id: Id
    query: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    items: Annotated[list[Id | RankItem], Field(min_length=1, max_length=1000)]
    explain: bool = False


class RecommendationQuery(BaseModel):
    """The query parameters of a user's recommendations; rules left out stay the placement's."""

    n: Annotated[int, Field(ge=1, le=500)] = 10
    after: Annotated[
        str | None, Field(max_length=8192, description="Receipt: wait until it is applied")
    ] = None
    exclude: Annotated[
        str | None,
        Field(max_length=65_536, description="`purchased`, `seen`, or item ids, comma-separated"),
    ] = None
    placement: Annotated[
        Id | None, Field(description="Chooses the rules, and has the impression logged")
    ] = None
    explain: bool = False
    category: Category | None = None
    brand: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    min_price: _Price = None
    max_price: _Price = None
    in_stock: bool | None = None
    repeat: bool | None = None
    max_age_days: Annotated[float | None, Field(gt=0, le=100_000, allow_inf_nan=False)] = None
    diversity: _Share = None
    explore: _Share = None
    new_items: Annotated[int | None, Field(ge=0, le=500)] = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        low, high = self.min_price, self.max_price
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_price {low:g} is over max_price {high:g}")
        return self

    def excluded(self) -> list[str]:
        """Return what ``exclude`` names."""
        return [name for name in (self.exclude or "").split(",") if name]

    def rules(self) -> Rules | None:
        """Return the rules that are given, None without any."""
        given: dict[str, Any] = {
            name: value for name in _PLAIN if (value := getattr(self, name)) is not None
        }
        if self.brand is not None:
            given["brand"] = Among(within=[self.brand])
        if self.min_price is not None or self.max_price is not None:
            given["price"] = Range(min=self.min_price, max=self.max_price)
        if self.repeat is not None:
            given["repeat"] = Repeat(allowed=self.repeat)
        if self.explore is not None:
            given["explore"] = Explore(share=self.explore)
        return Rules(**given) if given else None


def parse_query(query: Mapping[str, str]) -> RecommendationQuery:
    """Return the query parameters of a request.

    FastAPI would do the same, and takes half a millisecond to look through so many.

    Raises
    ------
    ProblemError
        422 naming the parameters that are wrong.
    """
    try:
        return RecommendationQuery.model_validate(dict(query))
    except ValidationError as error:
        errors = [{**each, "pointer": f"/query{each['pointer']}"} for each in problems(error)]
        where = ", ".join(each["pointer"] for each in errors[:5])
        raise ProblemError("invalid", f"invalid: {where}", errors=errors) from None


def _parameters() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in RecommendationQuery.model_json_schema()["properties"].items()
    ]


QUERY_PARAMETERS: Final = {"parameters": _parameters()}
"""`RecommendationQuery` as OpenAPI shows it."""
_PLAIN: Final = ("in_stock", "max_age_days", "diversity", "new_items")
