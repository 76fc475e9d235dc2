"""The score of one request in compiled code: what `network.network` writes as torch modules.

A single request is too small for torch: thirty operations on vectors of 64 numbers cost more
to call than to compute. Belongs here: the innermost loops, over arrays. Not here: whose
arrays, and whether they give what torch gives (`compiled_scores`).
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from training.neighbours.channels import FADING, PLACES, READ
from training.state.item_table_kernels import (
    EVENTS,
    LAST_MS,
)
from training.state.pair_features import write_one
from training.state.recurrence import gap_of, normalise, product, sigmoid

Floats = npt.NDArray[np.float32]
_ROOT_HALF: Final = math.sqrt(0.5)
_NOTHING: Final = 1e-7  # a faded row that `training.neighbours.channels` leaves out


def _none(count: int | None) -> int:
    return -1 if count is None else count


_COUNT: Final = np.array([_none(PLACES[m].count) if m in PLACES else -1 for m in range(READ)])
"""Place in `training.state.item_table.COUNTS` that a channel is multiplied with, −1 for none."""


class VectorWeights(NamedTuple):
    """What makes u of a state: weights by input, shapes (inputs, outputs), and biases."""

    encoder: bool
    project: Floats
    project_bias: Floats
    gate: Floats
    gate_bias: Floats
    fused_norm: Floats
    fused_bias: Floats
    out: Floats
    out_bias: Floats
    statistics: Floats
    statistics_bias: Floats
    features: Floats
    gap: Floats
    hour: Floats
    weekday: Floats
    time_norm: Floats
    time_bias: Floats
    norm: Floats
    norm_bias: Floats


class PairWeights(NamedTuple):
    """Of `network.repeat_head.PairHead`, weights by input, and the median gaps of items in days."""

    item: Floats
    user: Floats
    user_bias: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    linear: Floats
    linear_bias: Floats
    mix: Floats
    repurchase: Floats
    median_gap_days: Floats


@njit(cache=True)
def profile_vector(
    w: Any, floats: Any, hidden: int, scalars: Any, summary: Any, features: Any, now_ms: float,
    timed: bool,
) -> Any:  # fmt: skip
    """Return u, shape (D,); see `training.network.network.PortraitNetwork.vector`.

    Parameters
    ----------
    w
        `VectorWeights`.
    floats, scalars
        Of the state: what the encoder carries, h, c; the repeat table's scalars.
    summary, features
        `training.network.network.statistics` and the standardised user features of the shopper.
    """
    size = len(w.norm)
    u = w.statistics_bias.copy()
    if w.encoder:
        carried = len(floats) - 2 * hidden
        both = np.empty(2 * size, np.float32)
        both[:size] = w.project_bias
        product(both[:size], floats[carried : carried + hidden], w.project)
        both[size:] = floats[carried - size : carried]
        gates = w.gate_bias.copy()
        product(gates, both, w.gate)
        sigmoid(gates, np.float32(1), np.empty(2 * size, np.float32))
        z = np.empty(size, np.float32)
        for n in range(size):
            z[n] = gates[n] * both[n] + gates[size + n] * both[size + n]
        normalise(z, w.fused_norm, w.fused_bias)
        u += w.out_bias
        product(u, z, w.out)
    product(u, summary, w.statistics)
    product(u, features, w.features)
    if timed:
        hours = int(now_ms) // 3_600_000
        times = w.gap[gap_of(scalars, now_ms)] + w.hour[hours % 24]
        times = times + w.weekday[(hours // 24 + 3) % 7]
        normalise(times, w.time_norm, w.time_bias)
        u += times
    normalise(u, w.norm, w.norm_bias)
    return u


@njit(cache=True)
def add_pairs(logits: Any, w: Any, u: Any, rows: Any, scalars: Any, now_ms: float) -> None:
    """Add what held items are worth to their logits; see `network.repeat_head.PairHead`."""
    width, small = len(w.linear), w.item.shape[1]
    own = w.user_bias.copy()
    product(own, u, w.user)
    slope = w.linear.copy()
    product(slope, u, w.mix)
    inputs = np.empty(width + 2 * small, np.float32)
    inputs[width + small :] = own
    hidden = np.empty(len(w.first_bias), np.float32)
    now = max(now_ms, scalars[LAST_MS])
    for r in range(len(rows)):
        row = rows[r]
        f = inputs[:width]
        write_one(f, row, scalars, now, w.median_gap_days)
        inputs[width : width + small] = w.item[row.item]
        hidden[:] = w.first_bias
        product(hidden, inputs, w.first)
        value = w.second_bias[0] + w.linear_bias[0] + w.repurchase[row.item, 0]
        for n in range(width):
            value += slope[n] * f[n]
        for n in range(len(hidden)):
            a = hidden[n]
            value += w.second[n] * np.float32(0.5 * a * (1.0 + math.erf(a * _ROOT_HALF)))
        logits[row.item - 1] += value


@njit
def _faded(channel: int, row: Any, scalars: Any) -> Any:
    """Return what is left of a held item's row in a channel."""
    since = min(FADING.shape[1] - 1, max(0, int(scalars[EVENTS]) - row.last_event))
    left = FADING[channel, since]
    if _COUNT[channel] >= 0:
        left *= row.counts[_COUNT[channel]]
    return left if left > _NOTHING else np.float32(0)


@njit(cache=True)
def sum_rows(
    places: Any, rows: Any, scalars: Any, indptr: Any, column: Any, value: Any, items: int
) -> Any:
    """Return the items that the rows of what is held name, and what channels add up to there.

    Parameters
    ----------
    places
        Channels of one kind of rows, as places in a reading, shape (C,).
    indptr, column, value
        `training.neighbours.channels.ChannelTable`.
    items
        Size of the vocabulary.

    Returns
    -------
    tuple
        Items from 0, each once, shape (T,); sums before any logarithm, shape (C, T).
    """
    total = np.zeros((len(places), items), np.float32)
    size = 0
    for r in range(len(rows)):
        begin, end = indptr[rows[r].item - 1], indptr[rows[r].item]
        size += end - begin
        for c in range(len(places)):
            left, whole = _faded(places[c], rows[r], scalars), total[c]
            if left > 0:
                for k in range(begin, end):
                    whole[column[k]] += left * value[k]
    touched = np.empty(min(size, items) + 1, np.int64)
    new = np.ones(items, np.uint8)
    count = 0
    for r in range(len(rows)):
        for k in range(indptr[rows[r].item - 1], indptr[rows[r].item]):
            # Without a branch, which would be guessed wrong at every other entry.
            touched[count] = column[k]
            count += new[column[k]]
            new[column[k]] = 0
    sums = np.empty((len(places), count), np.float32)
    for c in range(len(places)):
        for n in range(count):
            sums[c, n] = total[c, touched[n]]
    return touched[:count], sums
