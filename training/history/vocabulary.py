"""The vocabulary: which items and categories a model knows, and their fixed statistics.

It is made from the training period only. What is learned about an item is in the network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import EventRecord
from feature_repo.events.types import CONSUMED, RECENT_HALF_LIFE_DAYS, TYPES

DAY_MS: Final = 86_400_000
POSITIVE: Final = {name: each.weight for name, each in TYPES.items() if each.weight}
"""Event types that say "this user wants it", with their weight in counts."""

MAX_ITEMS: Final = 1_000_000
MAX_CATEGORIES: Final = 1000
DENSE_ITEMS: Final = 4000
"""Up to so many a matrix over all pairs of items is inverted, and fitted over: 128 MB."""
FULL_ITEMS: Final = 20_000
"""Up to so many items everything is over all of them: softmax, rankings (P, N), rows of XᵀX."""
MIN_PEOPLE: Final = 2
"""Items and categories that fewer people turned to are not known: a model names nobody's own."""
_PRIOR_GAPS: Final = 10.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vocabulary:
    """Items and categories in a fixed order; index 0 of the network means "not known".

    Attributes
    ----------
    items
        Item ids, most frequent first. Item ``i`` is row ``i + 1`` of embeddings.
    categories
        Category names cut to two levels, see `category_key`.
    item_category
        Row of each item's category, 0 when it has none. Shape (N,).
    log_popularity
        Centred log of events with the item, halved every 28 days. Shape (N,).
    log_support
        Centred log of all events with the item. Shape (N,).
    median_gap_days
        Median days between two events of one user with the item, shrunk to the
        median of all items. Shape (N,).
    target
        Event type whose items are predicted: ``purchase``, or ``any`` in a log without.
    types
        How many of `CONSUMED` the model knows; it ignores types that came after its training.
    """

    items: tuple[str, ...]
    categories: tuple[str, ...]
    item_category: npt.NDArray[np.int64]
    log_popularity: Floats
    log_support: Floats
    median_gap_days: Floats
    target: str
    types: int = len(CONSUMED)

    @cached_property
    def type_index(self) -> dict[str, int]:
        """Row of each event type that moves the learned state, from 0."""
        return {name: i for i, name in enumerate(CONSUMED[: self.types])}

    @cached_property
    def index(self) -> dict[str, int]:
        """Row of each item id, from 1."""
        return {item: i + 1 for i, item in enumerate(self.items)}

    @cached_property
    def category_index(self) -> dict[str, int]:
        """Row of each category, from 1."""
        return {category: i + 1 for i, category in enumerate(self.categories)}

    def encode(self) -> bytes:
        """Return the JSON form; the same vocabulary gives the same bytes."""
        return orjson.dumps(
            {
                "items": self.items,
                "categories": self.categories,
                "item_category": self.item_category.tolist(),
                "log_popularity": [float(v) for v in self.log_popularity],
                "log_support": [float(v) for v in self.log_support],
                "median_gap_days": [float(v) for v in self.median_gap_days],
                "target": self.target,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Vocabulary":
        """Read the JSON form; `ModelMismatchError` if a part is missing or lengths disagree."""
        try:
            body: dict[str, Any] = orjson.loads(data)
            made = cls(
                items=tuple(body["items"]),
                categories=tuple(body["categories"]),
                item_category=np.array(body["item_category"], np.int64),
                log_popularity=np.array(body["log_popularity"], np.float32),
                log_support=np.array(body["log_support"], np.float32),
                median_gap_days=np.array(body["median_gap_days"], np.float32),
                target=str(body["target"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelMismatchError(f"the vocabulary cannot be read: {error!r}") from error
        if len(made.items) != len(made.item_category) or len(made.items) != len(
            made.log_popularity
        ):
            raise ModelMismatchError("the vocabulary's columns differ in length")
        return made


def category_key(category: str | None) -> str:
    """Return the first two levels of a category path.

    Examples
    --------
    >>> category_key("GROCERY/CHEESE/CHEDDAR")
    'GROCERY/CHEESE'
    >>> category_key(None)
    ''
    """
    return "" if category is None else "/".join(category.split("/", 2)[:2])


def minimum_support(events: int, supports: Sequence[int] = ()) -> int:
    """Return how many events an item must appear in to be known.

    One in 1,500, at least 5 and at most 100: 100 at the size of Complete Journey. Where that
    would leave out half of what was acted on (a shop of many items, each rarely), as few as
    leave out less, but never below 5.

    Parameters
    ----------
    events
        Number of events.
    supports
        Number of events with each item.

    Examples
    --------
    >>> minimum_support(150_000), minimum_support(900)
    (100, 5)
    >>> minimum_support(150_000, [200] + [20] * 50)
    20
    """
    bound = max(5, min(100, round(events / 1500)))
    falling = np.sort(np.array(supports, np.int64))[::-1]
    if not len(falling):
        return bound
    half = int(np.searchsorted(falling.cumsum(), falling.sum() / 2))
    return max(5, min(bound, int(falling[half])))


@dataclass(slots=True)
class _Count:
    support: int = 0
    people: int = 0
    recent: float = 0.0
    category: str = ""


def build_vocabulary(
    histories: Iterable[tuple[str, list[EventRecord]]], *, until_ms: int, support: int | None = None
) -> Vocabulary:
    """Count the training period's events and keep the items with enough of them.

    Parameters
    ----------
    histories
        Users with their events in fold order; events at or after ``until_ms`` are skipped.
    until_ms
        End of the training period, epoch milliseconds.
    support
        Fewest events of a known item, of however few people; None takes `minimum_support`, and
        `MIN_PEOPLE` people.
    """
    counts: dict[str, _Count] = {}
    gaps: dict[str, list[float]] = {}
    events = purchases = 0
    for _, history in histories:
        last: dict[str, int] = {}
        for event in history:
            if event.type not in POSITIVE or event.time_ms >= until_ms:
                continue
            events += 1
            purchases += event.type == "purchase"
            recent = 0.5 ** ((until_ms - event.time_ms) / DAY_MS / RECENT_HALF_LIFE_DAYS)
            for item_id, category in {i.item_id: i.category for i in event.items}.items():
                count = counts.setdefault(item_id, _Count())
                count.support += 1
                count.recent += recent
                count.category = category_key(category) or count.category
                count.people += item_id not in last
                if item_id in last:
                    gap = (event.time_ms - last[item_id]) / DAY_MS
                    gaps.setdefault(item_id, []).append(gap)
                last[item_id] = event.time_ms
    if support is None:
        counts = {k: count for k, count in counts.items() if count.people >= MIN_PEOPLE}
    supports = [count.support for count in counts.values()]
    least = minimum_support(events, supports) if support is None else support
    known = sorted((k for k, c in counts.items() if c.support >= least), key=_order(counts))
    return _vocabulary(known[:MAX_ITEMS], counts, gaps, _target(events, purchases))


def _target(events: int, purchases: int) -> str:
    return "purchase" if purchases and purchases >= 0.005 * events else "any"


def _order(counts: dict[str, _Count]) -> Any:
    return lambda item: (-counts[item].support, item)


def _vocabulary(
    known: list[str], counts: dict[str, _Count], gaps: dict[str, list[float]], target: str
) -> Vocabulary:
    sizes: dict[str, int] = {}
    for count in counts.values():
        sizes[count.category] = sizes.get(count.category, 0) + count.support
    sizes.pop("", None)
    categories = tuple(sorted(sizes, key=lambda c: (-sizes[c], c))[:MAX_CATEGORIES])
    row = {category: i + 1 for i, category in enumerate(categories)}
    everything = [gap for item in known for gap in gaps.get(item, ())]
    middle = float(np.median(everything)) if everything else 30.0
    shrunk = [
        (float(np.median(g)) * len(g) + middle * _PRIOR_GAPS) / (len(g) + _PRIOR_GAPS)
        if (g := gaps.get(item))
        else middle
        for item in known
    ]
    return Vocabulary(
        items=tuple(known),
        categories=categories,
        item_category=np.array([row.get(counts[i].category, 0) for i in known], np.int64),
        log_popularity=_centred([counts[i].recent + 0.5 for i in known]),
        log_support=_centred([float(counts[i].support) for i in known]),
        median_gap_days=np.array(shrunk, np.float32),
        target=target,
    )


def _centred(values: list[float]) -> Floats:
    logs = np.log(np.array(values, np.float64))
    return (logs - (logs.mean() if len(logs) else 0.0)).astype(np.float32)
