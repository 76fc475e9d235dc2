"""Batches: histories, repeat tables and targets of some users, ready for the network."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.history.sequences import Histories, Ints, clock_features, gap_bucket, ranges
from training.network.encoder import EventInputs
from training.network.repeat_head import Pairs, make_pairs
from training.state.item_table import LAST_MS, RepeatTables, Rows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def event_inputs(histories: Histories) -> EventInputs:
    """Return the encoder's inputs for whole histories: E events of B users."""
    lengths, total = histories.lengths(), len(histories.time_ms)
    times = histories.time_ms.astype(np.float64)
    gap = np.diff(times, prepend=0.0)
    # A late event counts from the latest time seen, as the repeat table's clock does.
    gap[1:] = np.maximum(times[1:] - _latest(histories, times)[:-1], 0.0)
    gap[histories.starts[:-1][lengths > 0]] = -1.0
    index = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), total, np.int64)
    user = np.repeat(np.arange(len(lengths)), lengths)
    index[user, np.arange(total) - histories.starts[:-1][user]] = np.arange(total)
    hour, weekday = clock_features(histories.time_ms)
    return EventInputs(
        item=torch.from_numpy(histories.item),
        category=torch.from_numpy(histories.category),
        first_line=torch.from_numpy(histories.lines[:-1]),
        size=torch.from_numpy(np.diff(histories.lines).astype(np.float32)),
        event_type=torch.from_numpy(histories.kind),
        gap=torch.from_numpy(gap_bucket(gap)),
        hour=torch.from_numpy(hour),
        weekday=torch.from_numpy(weekday),
        numeric=torch.from_numpy(histories.numeric),
        index=torch.from_numpy(index),
        lengths=torch.from_numpy(lengths),
    )


def _latest(histories: Histories, times: Doubles) -> Doubles:
    latest = times.copy()
    steps = np.diff(times)
    inner = np.ones(len(times), np.bool_)
    inner[histories.starts[:-1][histories.lengths() > 0]] = False
    if not (steps[inner[1:]] < 0).any():
        return latest
    for start, end in pairwise(histories.starts):
        latest[start:end] = np.maximum.accumulate(times[start:end])
    return latest


def fold(
    histories: Histories, tables: RepeatTables, users: Ints, events: Ints
) -> tuple[list[Rows], Doubles]:
    """Apply whole histories to the tables and look at them on the way.

    Parameters
    ----------
    histories
        Of as many users as there are tables.
    tables
        Changed in place.
    users, events
        What to look at: the table of ``users[k]`` right after its event ``events[k]``;
        ``events`` must not decrease.

    Returns
    -------
    list of Rows
        Snapshots that together hold the tables looked at, in the order asked for.
    ndarray
        The tables' scalars after every event, shape (E, 8).
    """
    lengths = histories.lengths()
    scalars = np.zeros((len(histories.time_ms), tables.scalars.shape[1]), np.float64)
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    snapshots, at = list[Rows](), 0
    sizes_all = np.diff(histories.lines)
    for t in range(int(lengths.max(initial=0))):
        active = order[: int(np.searchsorted(descending, -t, side="left"))]
        event = histories.starts[active] + t
        sizes = sizes_all[event]
        tables.apply(
            active, histories.time_ms[event], histories.weight[event],
            np.concatenate([[0], np.cumsum(sizes)]),
            histories.item[ranges(histories.lines[event], sizes)],
        )  # fmt: skip
        scalars[event] = tables.scalars[active]
        end = int(np.searchsorted(events, t, side="right"))
        if end > at:
            snapshots.append(tables.snapshot(users[at:end]))
            at = end
    return snapshots, scalars


def join(snapshots: list[Rows]) -> Rows:
    """Lay snapshots end to end."""
    sizes = np.cumsum([0] + [len(s.scalars) for s in snapshots])
    return Rows(
        np.concatenate([s.owner + n for s, n in zip(snapshots, sizes[:-1], strict=True)]),
        np.concatenate([s.rows for s in snapshots]),
        np.concatenate([s.scalars for s in snapshots]),
    )


def pairs_at(
    snapshot: Rows | None, now_ms: Doubles, timed: npt.NDArray[np.bool_], median_gap_days: Floats
) -> Pairs | None:
    """Return the items in the tables looked at, as of ``now_ms`` where it is known."""
    if snapshot is None:
        return None
    return make_pairs(
        snapshot, np.where(timed, now_ms, snapshot.scalars[:, LAST_MS]), median_gap_days
    )


@dataclass(frozen=True)
class Targets:
    """The items of the basket that followed each request.

    Attributes
    ----------
    owner, item
        Request and item (from 0) per line, shape (L,); owners do not decrease.
    sizes
        Items per request, shape (P,).
    """

    owner: Tensor
    item: Tensor
    sizes: Tensor


def make_targets(histories: Histories, event: Ints) -> Targets:
    """Return the known items of flat events ``event``, one basket per request."""
    sizes = np.diff(histories.lines)[event]
    line = ranges(histories.lines[event], sizes)
    owner = np.repeat(np.arange(len(event)), sizes)
    item = histories.item[line]
    known = item > 0
    owner, item = owner[known], item[known] - 1
    return Targets(
        torch.from_numpy(owner),
        torch.from_numpy(item),
        torch.from_numpy(np.bincount(owner, minlength=len(event))),
    )
