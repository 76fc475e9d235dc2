"""Events as arrays: what the networks read of a history.

Here is the one place where an `EventRecord` becomes numbers; training, replay and serving
all pass through `encode`. No parameters and no state live here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log1p
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.events.schema import EventRecord
from training.history.vocabulary import POSITIVE, Vocabulary, category_key

NUMERIC: Final = ("log_items", "log_spend", "log_mean_price", "log_quantity", "discount_share")
GAP_BUCKETS: Final = 25
"""0: no earlier event; 1–24: 1 + floor(log2(seconds + 1)), capped."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """Consumed events of several users, laid end to end.

    Attributes
    ----------
    users
        Pseudonyms, U of them.
    starts
        First event of each user, and the total. Shape (U + 1,).
    time_ms, kind, weight, target
        Per event, shape (E,): epoch milliseconds; index into `CONSUMED`; weight of its
        items in counts (0: not a positive signal); whether its items are to be predicted.
    numeric
        The `NUMERIC` features, shape (E, 5).
    lines
        First line of each event, and the total. Shape (E + 1,).
    item, category
        Vocabulary rows per line, 0 = not known. Shape (F,). Items are distinct per event.
    """

    users: tuple[str, ...]
    starts: Ints
    time_ms: Ints
    kind: Ints
    weight: Floats
    target: npt.NDArray[np.bool_]
    numeric: Floats
    lines: Ints
    item: Ints
    category: Ints

    def lengths(self) -> Ints:
        """Return the number of events of each user, shape (U,)."""
        return np.diff(self.starts)

    def before(self, until_ms: int) -> Ints:
        """Return each user's events ahead of the first at or after ``until_ms``, shape (U,)."""
        late = np.append(self.time_ms >= until_ms, True)
        following = np.where(late, np.arange(len(late)), len(late))
        first = np.minimum.accumulate(following[::-1])[::-1][self.starts[:-1]]
        out: Ints = np.minimum(first, self.starts[1:]) - self.starts[:-1]
        return out

    def select(self, users: Sequence[int] | Ints, first: Ints | None = None) -> "Histories":
        """Return some users' histories in the order given, or only their ``first`` n events."""
        chosen = np.asarray(users, np.int64)
        lengths = self.lengths()[chosen] if first is None else first
        events = ranges(self.starts[chosen], lengths)
        sizes = np.diff(self.lines)[events]
        flat = ranges(self.lines[events], sizes)
        return Histories(
            users=tuple(self.users[u] for u in chosen),
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            time_ms=self.time_ms[events],
            kind=self.kind[events],
            weight=self.weight[events],
            target=self.target[events],
            numeric=self.numeric[events],
            lines=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            item=self.item[flat],
            category=self.category[flat],
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return every array by name, for ``numpy.savez``."""
        names = (
            "starts", "time_ms", "kind", "weight", "target", "numeric", "lines", "item", "category",
        )  # fmt: skip
        return {"users": np.array(self.users, "U64"), **{n: getattr(self, n) for n in names}}

    @classmethod
    def from_arrays(cls, arrays: Any) -> "Histories":
        """Read what `arrays` gave."""
        parts = {name: arrays[name] for name in arrays}
        users = tuple(str(u) for u in parts.pop("users"))
        return cls(users=users, **parts)


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return ``concatenate([arange(s, s + n) ...])`` without a loop.

    Examples
    --------
    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(total, dtype=np.int64)


def gap_bucket(gap_ms: npt.NDArray[Any]) -> Ints:
    """Return the bucket of time gaps in milliseconds; negative means "no earlier event".

    Examples
    --------
    >>> gap_bucket(np.array([-1, 0, 1000, 86_400_000])).tolist()
    [0, 1, 2, 17]
    """
    seconds = np.maximum(gap_ms, 0) // 1000
    bucket = 1 + np.floor(np.log2(seconds + 1.0)).astype(np.int64)
    return np.where(gap_ms < 0, 0, np.minimum(bucket, GAP_BUCKETS - 1)).astype(np.int64)


def clock_features(time_ms: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Return hour (0–23) and weekday (0 = Monday) in UTC.

    Examples
    --------
    >>> [int(v[0]) for v in clock_features(np.array([1_700_000_000_000]))]
    [22, 1]
    """
    hours = np.asarray(time_ms, np.int64) // 3_600_000
    return hours % 24, (hours // 24 + 3) % 7


def encode(histories: Iterable[tuple[str, list[EventRecord]]], vocabulary: Vocabulary) -> Histories:
    """Turn event lists into arrays; events that the model does not consume are left out."""
    index, categories = vocabulary.index, vocabulary.category_index
    types = vocabulary.type_index
    any_target = vocabulary.target == "any"
    users, starts, lines = list[str](), [0], [0]
    time_ms, event_type, weight, target = list[int](), list[int](), list[float](), list[bool]()
    numeric, item, category = list[tuple[float, ...]](), list[int](), list[int]()
    keys: dict[str | None, int] = {}
    for user, events in histories:
        users.append(user)
        for event in events:
            code = types.get(event.type)
            if code is None or not event.items:
                continue
            time_ms.append(event.time_ms)
            event_type.append(code)
            weight.append(POSITIVE.get(event.type, 0.0))
            target.append(event.type == "purchase" or (any_target and event.type in POSITIVE))
            distinct = {line.item_id: line.category for line in event.items}
            for item_id, path in distinct.items():
                item.append(index.get(item_id, 0))
                row = keys.get(path)
                if row is None:
                    row = keys[path] = categories.get(category_key(path), 0)
                category.append(row)
            lines.append(len(item))
            numeric.append(_numeric(event, len(distinct)))
        starts.append(len(time_ms))
    return Histories(
        users=tuple(users),
        starts=np.array(starts, np.int64),
        time_ms=np.array(time_ms, np.int64),
        kind=np.array(event_type, np.int64),
        weight=np.array(weight, np.float32),
        target=np.array(target, np.bool_),
        numeric=np.array(numeric, np.float32).reshape(-1, len(NUMERIC)),
        lines=np.array(lines, np.int64),
        item=np.array(item, np.int64),
        category=np.array(category, np.int64),
    )


def _numeric(event: EventRecord, size: int) -> tuple[float, ...]:
    quantity = spend = discount = 0.0
    for line in event.items:
        quantity += line.quantity
        spend += line.quantity * (line.price or 0.0)
        discount += line.discount or 0.0
    quantity, spend = min(quantity, 1e6), min(spend, 1e6)
    share = min(discount, 1e6) / (spend + 1.0)
    mean = spend / quantity if quantity > 0 else 0.0
    return log1p(size), log1p(spend), log1p(mean), log1p(quantity), min(share, 2.0)
