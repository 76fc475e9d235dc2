"""Leaves of a rule: conditions on events, on their order, on traits, on scores.

Belongs here: the fields of each question and what they demand of each other. How leaves are
joined into rules is `rules`'.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StrictBool, StringConstraints, model_validator
from pydantic import field_validator as on_field

from feature_repo.audiences.traits import Trait, find_trait
from feature_repo.audiences.values import Bounds, Duration, Finite, Moment, Node, Texts, moment_ms
from feature_repo.events.fields import LongText

EventType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

TEXT_FIELDS: Final = (
    "source", "coupon", "query", "url", "device", "channel", "campaign_id", "placement",
    "currency", "item_id", "category", "brand",
)  # fmt: skip
NUMBER_FIELDS: Final = ("value", "rating", "price", "quantity")
LINE_FIELDS: Final = ("item_id", "category", "brand", "price", "quantity")
"""Fields of an event's lines; conditions on several must hold on one and the same line."""


class Where(Node):
    """Conditions on an event, all of which hold; a text must be one of those listed.

    ``category`` also matches every category below it: ``A/B`` matches ``A/B/C``.
    """

    source: Texts | None = None
    coupon: Texts | None = None
    query: Texts | None = None
    url: Texts | None = None
    device: Texts | None = None
    channel: Texts | None = None
    campaign_id: Texts | None = None
    placement: Texts | None = None
    currency: Texts | None = None
    value: Bounds | None = None
    rating: Bounds | None = None
    item_id: Texts | None = None
    category: Texts | None = None
    brand: Texts | None = None
    price: Bounds | None = None
    quantity: Bounds | None = None

    def texts(self, *, lines: bool) -> dict[str, list[str]]:
        """Return the conditions on texts: of the event, or of its lines."""
        found = {n: getattr(self, n) for n in TEXT_FIELDS if (n in LINE_FIELDS) == lines}
        return {name: value for name, value in found.items() if value is not None}

    def numbers(self, *, lines: bool) -> dict[str, Bounds]:
        """Return the conditions on numbers: of the event, or of its lines."""
        found = {n: getattr(self, n) for n in NUMBER_FIELDS if (n in LINE_FIELDS) == lines}
        return {name: value for name, value in found.items() if value is not None}

    def asks_lines(self) -> bool:
        """Say whether any condition is on lines."""
        return any(getattr(self, name) is not None for name in LINE_FIELDS)

    def shelf(self) -> str | None:
        """Return the category of the first or second level, where that is all it asks for."""
        if self.model_fields_set != {"category"} or self.category is None:
            return None
        one = len(self.category) == 1 and self.category[0].count("/") <= 1
        return self.category[0] if one else None

    def asks_nothing(self) -> bool:
        """Say whether there is no condition at all."""
        return not self.model_fields_set


class Step(Node):
    """Events of one type, under conditions."""

    type: EventType
    where: Where = Where()


class Sum(Bounds):
    """Σ over the matching events.

    ``value`` is what the event was worth (its ``value``, else Σ of its lines), ``amount`` what
    its matching lines were (max(0, quantity · price − discount)), ``quantity`` how many.
    """

    of: Literal["value", "amount", "quantity"] = "value"


class EventTest(Step):
    """Users by their events of one type.

    ``count`` compares how many match (default: at least one), ``sum`` adds up, ``first`` and
    ``last`` compare how many days ago the first or last match was. ``within`` takes the events
    of the last so long, ``between`` those of ``from <= time < to``.
    """

    count: Bounds | None = None
    sum: Sum | None = None
    first: Bounds | None = None
    last: Bounds | None = None
    within: Duration | None = None
    between: tuple[Moment, Moment] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        aggregates = [n for n in ("count", "sum", "first", "last") if getattr(self, n) is not None]
        if len(aggregates) > 1:
            raise ValueError(
                f"{aggregates[0]} and {aggregates[1]} in one event: use two, under all or any"
            )
        if self.within is not None and self.between is not None:
            raise ValueError("within and between in one event: give one of them")
        if self.between is not None and moment_ms(self.between[0]) >= moment_ms(self.between[1]):
            raise ValueError("between is [from, to] with from before to")
        return self

    def ever(self) -> bool:
        """Say whether it asks of all time."""
        return self.within is None and self.between is None


class SequenceTest(Node):
    """Users with an event ``start``, later a ``then``, at most ``within`` after it.

    ``without`` must not have happened between the two. ``ended_within`` asks that ``then`` was
    in the last so long.
    """

    start: Step
    then: Step
    within: Duration | None = None
    without: Step | None = None
    ended_within: Duration | None = None


class TraitTest(Node):
    """Users by the value of one trait (`feature_repo.audiences.traits`)."""

    name: Annotated[str, StringConstraints(max_length=128)]
    gte: Finite | None = None
    gt: Finite | None = None
    lte: Finite | None = None
    lt: Finite | None = None
    eq: StrictBool | Finite | LongText | None = None
    in_: Texts | None = Field(default=None, alias="in")
    contains: Texts | None = None

    @on_field("name")
    @classmethod
    def _find(cls, value: str) -> str:
        return find_trait(value).name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        trait, given = self.trait(), self.model_fields_set - {"name"}
        allowed, form = _OPERATORS[trait.kind]
        misfit = sorted(given - set(allowed))
        if misfit or not given:
            what = f"{misfit[0].rstrip('_')} does not fit" if misfit else "nothing is asked of"
            raise ValueError(f"{what} {trait.name}, a {trait.kind}: use {form}")
        wanted = {"number": (int, float), "flag": (bool,), "text": (str,)}.get(trait.kind, ())
        if self.eq is not None and not (
            isinstance(self.eq, wanted) and isinstance(self.eq, bool) == (trait.kind == "flag")
        ):
            raise ValueError(f"eq does not fit {trait.name}, a {trait.kind}: use {form}")
        unknown = [v for v in self.texts() if trait.values and v not in trait.values]
        if unknown:
            raise ValueError(
                f"{trait.name} is never {unknown[0][:80]!r}: it is one of {', '.join(trait.values)}"
            )
        return self

    def trait(self) -> Trait:
        """Return what is asked about."""
        return find_trait(self.name)

    def texts(self) -> list[str]:
        """Return the texts one of which the value must be, or hold."""
        equal = [self.eq] if isinstance(self.eq, str) else []
        return [*equal, *(self.in_ or ()), *(self.contains or ())]

    def bounds(self) -> Bounds:
        """Return what is asked of a number."""
        given = {n: getattr(self, n) for n in ("gte", "gt", "lte", "lt", "eq")}
        return Bounds(**{name: value for name, value in given.items() if value is not None})


_OPERATORS: Final = {
    "number": (("gte", "gt", "lte", "lt", "eq"), "gte, gt, lte, lt or eq with a number"),
    "flag": (("eq",), "eq with true or false"),
    "text": (("eq", "in_"), "eq or in with texts"),
    "texts": (("contains",), "contains with texts"),
}


class ScoreTest(Node):
    """Users by a score: a least value, or the highest-scored share of all who have one.

    ``interest`` is the linear score of ``score.yaml``; ``price_level``, 0 to 1, how dear what
    was bought is among the items of its category; the others are propensities that the model gives.
    """

    name: Literal["interest", "price_level", "purchase_7d", "lapse_28d"]
    gte: Finite | None = None
    top: Annotated[float, Field(gt=0, le=100, description="Percent of the users")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.gte is None) == (self.top is None):
            raise ValueError("give either gte, a least score, or top, percent of the users")
        return self
