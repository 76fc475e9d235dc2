"""The event types: what each needs, weighs and is called, as one table that everything reads.

The table is `types.yaml`. Belongs here: reading it, and how long an event counts. Not here: what a
single type does beyond it, such as the rules of orders.
"""

from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import msgspec


class EventType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the table; the head of `types.yaml` says what each field means."""

    code: int | None = None
    needs: tuple[Literal["items", "order_id", "rating"], ...] = ()
    encoder: int | None = None
    interest: float = 0.0
    evidence: Literal["view", "cart", "purchase"] | None = None
    item_only: bool = False
    seen: bool = False
    wanted: bool = False
    passive: bool = False
    consent: bool = False
    shop: bool = False
    weight: float = 0.0
    popularity: float = 0.0
    feature: str = ""
    verb: str = ""
    text: str = ""


# Whole weeks, so that weekdays count alike: of interests that last (four monthly orders), of what
# a user turns to now and what is trending, of what sells lately.
LONG_HALF_LIFE_DAYS, SHORT_HALF_LIFE_DAYS, RECENT_HALF_LIFE_DAYS = 112, 7, 28

TYPES: Final = msgspec.yaml.decode(
    Path(__file__).with_suffix(".yaml").read_bytes(), type=dict[str, EventType]
)


def find_types(field: str) -> frozenset[str]:
    """Return the types for which a field is said."""
    return frozenset(name for name, each in TYPES.items() if getattr(each, field))


def list_types(field: Literal["code", "encoder"]) -> tuple[str, ...]:
    """Return the types that have a number, in its order."""
    numbers = {getattr(each, field): name for name, each in TYPES.items()}
    return tuple(numbers[n] for n in sorted(numbers.keys() - {None}))


CONSUMED: Final = list_types("encoder")
"""Event types that move the learned state; all others leave it as it is."""

_AMOUNTS = sorted({0.0, *(each.popularity for each in TYPES.values())})
POPULARITY_LEVELS: Final = {
    name: _AMOUNTS.index(each.popularity) - 1 for name, each in TYPES.items() if each.popularity
}
"""How strong a thing a user did with an item, from 0, by event type."""
POPULARITY_STEPS: Final = tuple(amount - below for below, amount in pairwise(_AMOUNTS))
"""What each level adds to those below it, which it includes."""
