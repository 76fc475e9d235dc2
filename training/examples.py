"""Training and validation examples: which positions are asked, and with what answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.batches import (
    Doubles,
    Targets,
    event_inputs,
    fold,
    make_targets,
    pairs_at,
)
from training.config import ModelConfig, TrainConfig
from training.encoder import EventInputs
from training.network import Requests, make_requests
from training.pair import Pairs
from training.prepared import Moments, Prepared, WEEK_MS
from training.repeat import RepeatTables
from training.sequences import Histories, Ints

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One batch: histories and what is asked along them.

    Attributes
    ----------
    events
        All events of the batch.
    place
        Row of each basket request's last event in ``(B·T)`` order, shape (P,).
    requests, pairs, targets
        Basket requests.
    moment_place, moments, labels
        Propensity requests and their answers.
    users
        Index of each basket request's user among all users, shape (P,).
    """

    events: EventInputs
    place: Ints
    requests: Requests
    pairs: Pairs | None
    targets: Targets
    moment_place: Ints
    moments: Requests
    labels: Floats
    users: Ints


@dataclass(frozen=True)
class Asked:
    """Requests along some histories: user row, last event, answer's event (−1: none).

    ``now_ms`` is the time of the request, ``timed`` whether the network may know it.
    """

    user: Ints
    event: Ints
    answer: Ints
    now_ms: Doubles
    timed: npt.NDArray[np.bool_]


def next_targets(histories: Histories) -> Ints:
    """Return, per event, the flat index of its user's next target event with a known item.

    −1 where none follows. Shape (E,).
    """
    sizes = np.add.reduceat(
        np.append(histories.item > 0, False).astype(np.int64), histories.lines[:-1]
    ) if len(histories.time_ms) else np.zeros(0, np.int64)
    usable = histories.target & (sizes > 0)
    flat = np.where(usable, np.arange(len(usable)), len(usable))
    following = np.append(flat[1:], len(usable))
    following = np.minimum.accumulate(following[::-1])[::-1]
    last = np.repeat(histories.starts[1:], histories.lengths())
    return np.where(following < last, following, -1)


def until(histories: Histories, time_ms: int) -> Histories:
    """Return the part of each history before its first event at or after ``time_ms``."""
    late = histories.time_ms >= time_ms
    kept = list[Ints]()
    for start, end in zip(histories.starts[:-1], histories.starts[1:], strict=True):
        part = late[start:end]
        kept.append(np.arange(start, start + (int(part.argmax()) if part.any() else end - start)))
    lengths = np.array([len(k) for k in kept], np.int64)
    return _cut(histories, lengths)


def _cut(histories: Histories, lengths: Ints) -> Histories:
    from training.sequences import ranges

    events = ranges(histories.starts[:-1], lengths)
    sizes = np.diff(histories.lines)[events]
    flat = ranges(histories.lines[events], sizes)
    return Histories(
        users=histories.users,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        time_ms=histories.time_ms[events],
        kind=histories.kind[events],
        weight=histories.weight[events],
        target=histories.target[events],
        numeric=histories.numeric[events],
        lines=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        item=histories.item[flat],
        category=histories.category[flat],
    )
