"""Kernels of the item table, compiled: what one event does to one table (`state.item_table`).

Belongs here: rows and scalars of one user. Not here: batches of users (`item_table`), bytes
(`codec`), the network (`recurrence`).
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit

DAY_MS: Final = 86_400_000.0
EVENTS, KNOWN, SIZE_SUM, LAST_SIZE, FIRST_MS, LAST_MS, LAST_GAP_MS, USED = range(8)
"""Scalars of a table; events: positive events; known: any consumed event seen (0/1); used: rows
taken."""

COUNTS: Final = ("count", "decayed_95", "decayed_80", "decayed_97", "days_30", "days_120")
EVENT_DECAYS: Final = (0.95, 0.8, 0.97)
DAY_SCALES: Final = (30.0, 120.0)
ROW: Final = np.dtype(
    [("item", "<i4"), ("last_event", "<i4"), ("last_s", "<i8"), ("first_day", "<i4"),
     ("again", "<i4"), ("counts", "<f4", (len(COUNTS),))]
)  # fmt: skip
"""One row: vocabulary row, positive events up to its last touch, time of that touch (epoch
seconds), epoch day of its first touch, whether it was touched again, `COUNTS`."""

STEPS: Final = np.exp2((np.arange(256) - 73) / 30).astype(np.float32)
"""Values a decayed count is rounded to, by its code; code 0 is not used."""

POWERS: Final = np.power(
    np.array([1.0, *EVENT_DECAYS], np.float64)[:, None], np.arange(4096)[None, :]
).astype(np.float32)
MAX_COUNT: Final = 60_000.0
_EVICT: Final = 3  # index in COUNTS of the decayed count that decides who leaves
_LEAST: Final = float(STEPS[1])


@njit
def code_of(count: Any) -> Any:
    """Return the code in `STEPS` nearest to a positive value, by its logarithm."""
    code = int(np.rint(math.log2(max(float(count), _LEAST)) * 30.0)) + 73
    return min(255, max(1, code))


@njit
def to_half(bits: Any) -> Any:
    """Round the bits of a float32 between 2⁻¹⁴ and 65,504 to those that a float16 can hold."""
    return (bits + 0xFFF + (bits >> 13 & 1)) & 0xFFFFE000


@njit
def _touch(row: Any, number: int, now_ms: float, weight: float, bits: Any) -> None:
    """Count an item that the table holds once more; ``bits`` is scratch, a float32 as uint32."""
    passed = min(POWERS.shape[1] - 1, max(0, number - row.last_event))
    days = max(0.0, now_ms - row.last_s * 1000.0) / DAY_MS
    counts = row.counts
    floats = bits.view(np.float32)
    floats[0] = min(np.float32(counts[0] + weight), np.float32(MAX_COUNT))
    bits[0] = to_half(bits[0])
    counts[0] = floats[0]
    for n in range(1, 4):
        counts[n] = STEPS[code_of(np.float32(counts[n] * POWERS[n, passed]) + weight)]
    for n in range(2):
        kept = np.float32(math.exp(-days / DAY_SCALES[n]))
        counts[4 + n] = STEPS[code_of(np.float32(counts[4 + n] * kept) + weight)]
    row.again = 1


@njit
def _weakest(rows: Any, used: int, number: int) -> int:
    """Return the row that leaves: equals leave oldest first, then by item; −1 if none may."""
    found, lowest = -1, np.float32(0.0)
    for at in range(used):
        row = rows[at]
        if row.last_event == number:  # a basket never evicts its own items
            continue
        passed = min(POWERS.shape[1] - 1, max(0, number - row.last_event))
        score = np.float32(row.counts[_EVICT] * POWERS[_EVICT, passed])
        if found >= 0:
            other = rows[found]
            if score > lowest:
                continue
            # Not by index: where a row stands depends on how often the table was packed.
            if score == lowest and (row.last_event, row.item) > (other.last_event, other.item):
                continue
        found, lowest = at, score
    return found


@njit
def count_event(
    rows: Any, scalars: Any, time_ms: int, weight: float, items: Any, bits: Any
) -> None:
    """Apply one event to one table.

    Parameters
    ----------
    rows
        `ROW` records, shape (capacity,).
    scalars
        Shape (8,).
    time_ms, weight
        Time; weight of its items in counts (0: only the clock moves).
    items
        Vocabulary row per line, 0 = not known, the others distinct.
    bits
        Scratch, one uint32.
    """
    known = scalars[KNOWN] > 0
    scalars[LAST_GAP_MS] = max(0.0, time_ms - scalars[LAST_MS]) if known else 0.0
    if not known:
        scalars[FIRST_MS] = time_ms
        scalars[LAST_MS] = time_ms
    scalars[LAST_MS] = max(scalars[LAST_MS], float(time_ms))
    scalars[KNOWN] = 1.0
    if weight <= 0:
        return
    scalars[EVENTS] += 1
    scalars[SIZE_SUM] += len(items)
    scalars[LAST_SIZE] = len(items)
    number, used, now_ms = int(scalars[EVENTS]), int(scalars[USED]), scalars[LAST_MS]
    now_s = int(now_ms) // 1000
    before = used
    for item in items:  # known ones first: others of the basket must not evict them
        for at in range(before):
            if rows[at].item == item and item > 0:
                _touch(rows[at], number, now_ms, weight, bits)
                rows[at].last_event = number
                rows[at].last_s = now_s
                break
    for item in items:
        if item > 0 and not _has_item(rows, used, item):
            # Free rows are filled before anything is evicted.
            at = used if used < len(rows) else _weakest(rows, used, number)
            if at < 0:
                continue
            used = max(used, at + 1)
            row = rows[at]
            row.item, row.last_event, row.last_s = item, number, now_s
            row.first_day, row.again = now_s // 86_400, 0
            for n in range(6):
                row.counts[n] = weight
    scalars[USED] = used


@njit
def _has_item(rows: Any, used: int, item: int) -> bool:
    for at in range(used):  # noqa: SIM110 - compiled code has no generators
        if rows[at].item == item:
            return True
    return False


@njit(cache=True, nogil=True)
def count_events(
    rows: Any, scalars: Any, users: Any, time_ms: Any, weight: Any, lines: Any, item: Any
) -> None:
    """Apply one event to each of the tables ``users``; see `item_table.RepeatTables.apply`."""
    bits = np.zeros(1, np.uint32)
    for n in range(len(users)):
        user = users[n]
        count_event(
            rows[user], scalars[user], time_ms[n], weight[n],
            item[lines[n] : lines[n + 1]], bits,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def round_counts(counts: Any, out: Any) -> None:
    """Round rows of six counts to what a row can keep."""
    bits = np.zeros(1, np.uint32)
    floats = bits.view(np.float32)
    for r in range(len(counts)):
        floats[0] = min(counts[r, 0], np.float32(MAX_COUNT))
        bits[0] = to_half(bits[0])
        out[r, 0] = floats[0]
        for n in range(1, 6):
            out[r, n] = STEPS[code_of(counts[r, n])]
