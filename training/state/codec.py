"""The bytes of learned states, compiled: one pass over each state, whole batches at a time.

`scoring.learned_state` says what the bytes are. Belongs here: reading and writing them. Not here:
single numbers and the precision of h and c (`numbers`), or what an event does.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from training.history.vocabulary import POSITIVE
from training.state.item_table_kernels import EVENTS, KNOWN, LAST_MS, STEPS, USED, code_of
from training.state.numbers import number, put, read_floats, write_floats

FORMAT: Final = 4
HEAD: Final = 13
SCALARS: Final = 35
WEIGHTS: Final = np.array([0.0, *sorted(set(POSITIVE.values()))], np.float32)
"""Weights that an event gives its items, by their code."""


class Shape(NamedTuple):
    """What of a state depends on the model; see `training.scoring.learned_state.Layout`.

    Attributes
    ----------
    model
        Digest of its version.
    capacity, carried, hidden, items
        As there.
    item_bytes
        Bytes in which an item is kept.
    """

    model: int
    capacity: int
    carried: int
    hidden: int
    items: int
    item_bytes: int

    @property
    def most_bytes(self) -> int:
        """How large a packed state can be."""
        fixed = HEAD + SCALARS + 3 * self.carried + 6 * self.hidden
        return fixed + self.capacity * (10 + self.item_bytes + _AGAIN) + self.capacity // 8 + 1


FINE, OTHER_MODEL, DAMAGED = 0, 1, 2
_AGAIN: Final = 9  # bytes of a row touched again, beside its item


@njit
def read_state(data: Any, shape: Any, scalars: Any, floats: Any, rows: Any) -> int:
    """Read one packed state into arrays and return `FINE`, or what is wrong with it."""
    float_bytes = 3 * shape.carried + 6 * shape.hidden
    if len(data) < HEAD + SCALARS or number(data, 0, 2) != FORMAT:
        return DAMAGED
    if number(data, 2, 4) != shape.model:
        return OTHER_MODEL
    used, groups, again = number(data, 6, 2), number(data, 8, 2), number(data, 10, 2)
    width = data[12]
    group_at = HEAD + SCALARS + float_bytes
    item_at = group_at + groups * (width + 6)
    bit_at = item_at + used * shape.item_bytes
    again_at = bit_at + (used + 7) // 8
    if (width != 1 and width != 4) or used > len(rows):
        return DAMAGED
    if again_at + _AGAIN * again != len(data):
        return DAMAGED
    at = HEAD
    scalars[EVENTS] = number(data, at, 4)
    scalars[2] = number(data, at + 4, 4)
    scalars[3] = number(data, at + 8, 2)
    scalars[KNOWN] = data[at + 10]
    for n in range(3):  # first_ms, last_ms, last_gap_ms
        scalars[4 + n] = number(data, at + 11 + 8 * n, 8)
    scalars[USED] = used
    read_floats(data, HEAD + SCALARS, floats, shape.hidden)
    return _read_rows(
        data, group_at, groups, width, item_at, shape.item_bytes, shape.items, bit_at, again_at,
        again, scalars, rows,
    )  # fmt: skip


@njit
def _read_rows(
    data: Any, group_at: int, groups: int, width: int, item_at: int, item_width: int,
    items: int, bit_at: int, again_at: int, again: int, scalars: Any, rows: Any,
) -> int:  # fmt: skip
    used, many = int(scalars[USED]), 0
    event, second = int(scalars[EVENTS]), int(scalars[LAST_MS]) // 1000
    for g in range(groups):
        at = group_at + g * (width + 6)
        event -= number(data, at, width)
        second -= number(data, at + width, 4)
        many += data[at + width + 4] + 1
        if data[at + width + 5] >= len(WEIGHTS):
            return DAMAGED
    if many != used:
        return DAMAGED
    row_at, nth = 0, 0
    for g in range(groups):
        at = group_at + g * (width + 6)
        weight = WEIGHTS[data[at + width + 5]]
        for r in range(row_at, row_at + data[at + width + 4] + 1):
            row = rows[r]
            item = number(data, item_at + r * item_width, item_width)
            if item < 1 or item > items:
                return DAMAGED
            row.item, row.last_event, row.last_s = item, event, second
            row.again = data[bit_at + (r >> 3)] >> (7 - (r & 7)) & 1
            if row.again:
                if nth == again:
                    return DAMAGED
                _read_counts(data, again_at, again, nth, row)
                nth += 1
            else:
                row.first_day = second // 86_400
                for n in range(6):
                    row.counts[n] = weight
        row_at += data[at + width + 4] + 1
        event += number(data, at, width)
        second += number(data, at + width, 4)
    return FINE if nth == again else DAMAGED


@njit
def _read_counts(data: Any, at: int, again: int, nth: int, row: Any) -> None:
    half = number(data, at + 2 * nth, 2)
    word = np.zeros(1, np.uint32)
    word[0] = (half + (112 << 10)) << 13  # between 2⁻¹⁴ and 65,504
    row.counts[0] = word.view(np.float32)[0]
    row.first_day = number(data, at + 2 * again + 2 * nth, 2)
    for n in range(5):
        row.counts[1 + n] = STEPS[data[at + 4 * again + 5 * nth + n]]


@njit(cache=True)
def read_states(
    data: Any, starts: Any, shape: Any, scalars: Any, floats: Any, rows: Any
) -> tuple[int, int]:
    """Read packed states, laid end to end, into arrays; an empty one leaves its arrays alone.

    Returns
    -------
    tuple
        A user, and what is wrong with that user's state: `FINE` if all is well.
    """
    for user in range(len(starts) - 1):
        if starts[user + 1] > starts[user]:
            state = data[starts[user] : starts[user + 1]]
            found = read_state(state, shape, scalars[user], floats[user], rows[user])
            if found != FINE:
                return user, found
    return len(starts) - 2, FINE


@njit
def _sort(rows: Any, used: int, order: Any, keys: Any) -> None:
    """Order rows by last event and item; they stand nearly so, but for those just touched."""
    for n in range(used):
        key = np.int64(rows[n].last_event) << 32 | rows[n].item
        at = n
        while at > 0 and keys[at - 1] > key:
            keys[at], order[at] = keys[at - 1], order[at - 1]
            at -= 1
        keys[at], order[at] = key, n


@njit
def write_state(
    out: Any, shape: Any, scalars: Any, floats: Any, rows: Any, order: Any, keys: Any
) -> int:
    """Pack one state and return its length; ``order`` and ``keys`` are scratch."""
    used = int(scalars[USED])
    _sort(rows, used, order, keys)
    groups, again, width = 0, 0, 1
    for n in range(used):
        row = rows[order[n]]
        again += row.again
        if n == 0 or row.last_event != rows[order[n - 1]].last_event:
            groups += 1
            if n and row.last_event - rows[order[n - 1]].last_event > 0xFF:
                width = 4
    if used and int(scalars[EVENTS]) - rows[order[used - 1]].last_event > 0xFF:
        width = 4
    at = put(out, 0, FORMAT, 2)
    at = put(out, at, shape.model, 4)
    at = put(out, at, used, 2)
    at = put(out, at, groups, 2)
    at = put(out, at, again, 2)
    at = put(out, at, width, 1)
    at = put(out, at, min(int(scalars[EVENTS]), 0xFFFFFFFF), 4)
    at = put(out, at, min(int(scalars[2]), 0xFFFFFFFF), 4)
    at = put(out, at, int(scalars[3]), 2)
    at = put(out, at, int(scalars[KNOWN]), 1)
    for n in range(3):
        at = put(out, at, int(scalars[4 + n]), 8)
    at = write_floats(out, at, floats, shape.hidden)
    return _write_rows(out, at, shape.item_bytes, groups, again, width, scalars, rows, order)


@njit
def _write_rows(
    out: Any, at: int, item_width: int, groups: int, again: int, width: int, scalars: Any,
    rows: Any, order: Any,
) -> int:  # fmt: skip
    used = int(scalars[USED])
    item_at = at + groups * (width + 6)
    bit_at = item_at + used * item_width
    again_at = bit_at + (used + 7) // 8
    for n in range(bit_at, again_at):
        out[n] = 0
    begin, nth = 0, 0
    word = np.zeros(1, np.float32)
    for n in range(used):
        row = rows[order[n]]
        put(out, item_at + n * item_width, row.item, item_width)
        if row.again:
            out[bit_at + (n >> 3)] |= 0x80 >> (n & 7)
            word[0] = row.counts[0]
            half = (np.int64(word.view(np.uint32)[0]) >> 13) - (112 << 10)
            put(out, again_at + 2 * nth, half, 2)
            put(out, again_at + 2 * again + 2 * nth, row.first_day, 2)
            for k in range(5):
                out[again_at + 4 * again + 5 * nth + k] = code_of(row.counts[1 + k])
            nth += 1
        last = n + 1 == used
        if last or rows[order[n + 1]].last_event != row.last_event:
            event, second = int(scalars[EVENTS]), int(scalars[LAST_MS]) // 1000
            if not last:
                event, second = rows[order[n + 1]].last_event, rows[order[n + 1]].last_s
            at = put(out, at, event - row.last_event, width)
            at = put(out, at, second - row.last_s, 4)
            at = put(out, at, n - begin, 1)
            at = put(out, at, _weight_code(rows, order, begin, n + 1), 1)
            begin = n + 1
    return again_at + _AGAIN * again


@njit
def _weight_code(rows: Any, order: Any, begin: int, end: int) -> int:
    """Return the code of the weight that rows touched once have; 0 if there are none."""
    for n in range(begin, end):
        row = rows[order[n]]
        if not row.again:
            for code in range(len(WEIGHTS)):
                if WEIGHTS[code] >= row.counts[0]:
                    return code
    return 0
