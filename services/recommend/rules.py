"""Rules: what a placement or a request demands of the items.

Belongs here: the rules' form and their effect on rows. Not here: files of rules (`rule_book`),
in which order they give way (`rule_fallback`), choosing among what is left (`diversify`).
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.events.fields import Category, Id, Text
from services.recommend.assortment import UNKNOWN_MS, Assortment, Mask, Rows
from services.recommend.user_context import UserContext

DAY_MS: Final = 86_400_000
GROUPS: Final = ("purchased", "seen")
"""Words of ``exclude`` that stand for items of the user's own."""

Floats = npt.NDArray[np.floating]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Among(_Rule):
    """Names that are wanted (``in``; absent: all) and not wanted (``out``)."""

    within: Annotated[list[Category] | None, Field(alias="in", max_length=1000)] = None
    out: Annotated[list[Category], Field(max_length=1000)] = []

    @property
    def active(self) -> bool:
        """Whether the rule asks for anything."""
        return self.within is not None or bool(self.out)


class Range(_Rule):
    """Bounds of a price, both included; an item without a price is in no range."""

    min: _Money | None = None
    max: _Money | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("min or max is required")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is over max {self.max:g}")
        return self


class Boost(_Rule):
    """Raises (``factor`` over 1) or buries (under 1) items of an id, a category or a brand."""

    item_id: Id | None = None
    category: Category | None = None
    brand: Text | None = None
    factor: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.item_id, self.category, self.brand)) != 1:
            raise ValueError("exactly one of item_id, category, brand is required")
        return self


class ListCap(_Rule):
    """Most items of one brand, and of one category cut to ``depth`` levels."""

    brand: Annotated[int, Field(ge=1, le=500)] | None = None
    category: Annotated[int, Field(ge=1, le=500)] | None = None
    depth: Annotated[int, Field(ge=1, le=10)] = 2


class Repeat(_Rule):
    """Whether what was bought may come again; the nearest category named decides."""

    allowed: bool = True
    categories: Annotated[dict[Category, bool], Field(max_length=1000)] = {}

    @property
    def active(self) -> bool:
        """Whether the rule asks for anything."""
        return not self.allowed or bool(self.categories)


class Explore(_Rule):
    """Share of places given to one of the best ``pool`` items by chance; see `explore`.

    ``by`` says which probability: ``epsilon`` that of all alike, ``thompson`` of being best,
    as far as is known, where ``spread`` is the score's standard deviation for an item that
    nobody touched lately, in standard deviations of the pool's scores.
    """

    share: _Share
    pool: Annotated[int, Field(ge=2, le=1000)] = 100
    by: Literal["epsilon", "thompson"] = "epsilon"
    spread: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0


class Rules(_Rule):
    """Everything that can be demanded; see docs/recommendations.md.

    Examples
    --------
    >>> Rules.model_validate({"price": {"max": 5}, "diversity": 0.3}).price.max
    5.0
    """

    exclude: Annotated[list[Id], Field(max_length=1000)] = []
    category: Among = Among()
    brand: Among = Among()
    price: Range | None = None
    in_stock: bool = True
    max_age_days: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    boost: Annotated[list[Boost], Field(max_length=100)] = []
    cap: ListCap = ListCap()
    repeat: Repeat = Repeat()
    diversity: _Share = 0.0
    explore: Explore | None = None
    new_items: Annotated[int, Field(ge=0, le=500)] = 0
    fallback: bool = True

    def under(self, nearer: "Rules") -> "Rules":
        """Return these rules where ``nearer`` sets none; ``exclude`` adds up."""
        if not nearer.model_fields_set:
            return self
        given = {name: getattr(nearer, name) for name in nearer.model_fields_set}
        if "exclude" in given:
            given["exclude"] = [*self.exclude, *nearer.exclude]
        return self.model_copy(update=given)


NO_RULES: Final = Rules()
ALL: Final = slice(None)


def mask_allowed(
    items: Assortment, rules: Rules, user: UserContext, now_ms: int, rows: Rows | slice = ALL
) -> Mask:
    """Return which of ``rows`` may be answered; may be shared: not to be changed."""
    mask = items.mask_offered(now_ms, in_stock=rules.in_stock)
    banned = items.rows(_list_banned(items, rules, user))
    if len(banned):
        mask = mask.copy()
        mask[banned] = False
    mask = mask[rows]
    if rules.category.active:
        mask = mask & _mask_categories(items, rules.category)[items.category[rows]]
    if rules.brand.active:
        mask = mask & _brands(items, rules.brand)[items.brand[rows]]
    if rules.price is not None:
        low, high, price = rules.price.min, rules.price.max, items.price[rows]
        mask = mask & (price >= (low or 0.0))
        mask = mask if high is None else mask & (price <= high)
    if rules.max_age_days is not None:
        since = items.since_ms(rows)
        mask = mask & (since != UNKNOWN_MS) & (since >= now_ms - rules.max_age_days * DAY_MS)
    return mask


def boosts(items: Assortment, rules: Rules, rows: Rows | slice = ALL) -> Floats | None:
    """Return ``ln(factor)`` of each of ``rows``, added up over the boosts; None without any."""
    if not rules.boost:
        return None
    brands, shelves = np.zeros(len(items.brands.of)), defaultdict[str, float](float)
    single = defaultdict[int, float](float)
    for boost in rules.boost:
        amount = math.log(boost.factor)
        if boost.item_id is not None:
            row = items.row.get(boost.item_id)
            if row is not None:
                single[row] += amount
        elif boost.category is not None:
            shelves[boost.category] += amount
        elif (number := items.brands.number(boost.brand or "")) > 0:
            brands[number] += amount
    total: Floats = brands[items.brand[rows]]
    if shelves:
        amounts = [
            sum(shelves[name] for name in line if name in shelves)
            for line in items.categories.lines
        ]
        total += np.array(amounts)[items.category[rows]]
    for row, amount in single.items():
        total[np.arange(len(items))[rows] == row] += amount
    return total


def _list_banned(items: Assortment, rules: Rules, user: UserContext) -> Iterator[str]:
    yield from user.refused
    yield from (each for each in rules.exclude if each not in GROUPS)
    if "purchased" in rules.exclude:
        yield from user.purchased
    if "seen" in rules.exclude:
        yield from user.seen
    if rules.repeat.active:
        yield from (item for item in user.purchased if not _may_repeat(items, rules, item))


def _may_repeat(items: Assortment, rules: Rules, item: str) -> bool:
    row = items.row.get(item)
    path = "" if row is None else items.categories.of[items.category[row]]
    while path:
        if path in rules.repeat.categories:
            return rules.repeat.categories[path]
        path = path.rpartition("/")[0]
    return rules.repeat.allowed


def _mask_categories(items: Assortment, rule: Among) -> Mask:
    """Return which categories, by number, the rule lets through."""
    chosen = np.full(len(items.categories.of), rule.within is None)
    if rule.within is not None:
        chosen = items.categories.within(rule.within)
    if rule.out:
        chosen &= ~items.categories.within(rule.out)
    return chosen


def _brands(items: Assortment, rule: Among) -> Mask:
    chosen = np.full(len(items.brands.of), rule.within is None)
    chosen[[n for name in rule.within or () if (n := items.brands.number(name))]] = True
    chosen[[n for name in rule.out if (n := items.brands.number(name))]] = False
    return chosen
