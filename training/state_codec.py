"""The bytes of learned states, compiled: one pass over each state, whole batches at a time.

`training.state` says what the bytes are. Belongs here: reading and writing them, and the
precision in which h and c are kept. Not here: what an event does.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from training.encoder import WINDOW
from training.repeat_step import EVENTS, KNOWN, LAST_MS, STEPS, USED, code_of
from training.vocabulary import POSITIVE

FORMAT: Final = 3
HEAD: Final = 13
SCALARS: Final = 35
WEIGHTS: Final = np.array([0.0, *sorted(set(POSITIVE.values()))], np.float32)
"""Weights that an event gives its items, by their code."""


class Shape(NamedTuple):
    """What of a state depends on the model; see `training.state.Layout`.

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
        fixed = HEAD + SCALARS + 2 * WINDOW + 4 * self.carried + 6 * self.hidden
        return fixed + self.capacity * (10 + self.item_bytes + _AGAIN) + self.capacity // 8 + 1


FINE, OTHER_MODEL, DAMAGED = 0, 1, 2
_H_UNIT: Final = np.float32(1 << 23)
_LEAST_EXPONENT: Final = 64
_AGAIN: Final = 9  # bytes of a row touched again, beside its item


@njit
def _number(data: Any, at: int, width: int) -> Any:
    value = np.int64(0)
    for n in range(width):
        value |= np.int64(data[at + n]) << (8 * n)
    return value


@njit
def _put(out: Any, at: int, value: int, width: int) -> int:
    for n in range(width):
        out[at + n] = (value >> (8 * n)) & 0xFF
    return at + width


@njit
def round_h(values: Any) -> None:
    """Round h, which lies within ±1, to 24 bits of fixed point: 1.2e-7 apart."""
    for n in range(len(values)):
        units = np.rint(values[n] * _H_UNIT)
        values[n] = max(-_H_UNIT, min(_H_UNIT - np.float32(1), units)) / _H_UNIT


@njit
def round_c(values: Any) -> None:
    """Round c to 16 bits of mantissa: 7.6e-6 of itself at most; below 2⁻⁶² it is 0."""
    bits = values.view(np.uint32)
    for n in range(len(values)):
        kept = (bits[n] + np.uint32(0x40)) & np.uint32(0xFFFFFF80)
        exponent = kept >> 23 & np.uint32(0xFF)
        bits[n] = kept if exponent > _LEAST_EXPONENT else np.uint32(0)


@njit
def _read_floats(data: Any, at: int, floats: Any, hidden: int) -> int:
    carried = len(floats) - 2 * hidden
    bits = floats.view(np.uint32)
    for n in range(carried):
        bits[n] = _number(data, at, 4)
        at += 4
    for n in range(carried, carried + hidden):
        units = _number(data, at, 3)
        floats[n] = np.float32(units - (1 << 24) if units >> 23 else units) / _H_UNIT
        at += 3
    for n in range(carried + hidden, len(floats)):
        packed = _number(data, at, 3)
        exponent = packed >> 16 & 0x7F
        bits[n] = (
            (packed >> 23) << 31 | (exponent + _LEAST_EXPONENT) << 23 | (packed & 0xFFFF) << 7
            if exponent
            else 0
        )
        at += 3
    return at


@njit
def _write_floats(out: Any, at: int, floats: Any, hidden: int) -> int:
    carried = len(floats) - 2 * hidden
    bits = floats.view(np.uint32)
    for n in range(carried):
        at = _put(out, at, bits[n], 4)
    for n in range(carried, carried + hidden):
        at = _put(out, at, int(floats[n] * _H_UNIT) & 0xFFFFFF, 3)
    for n in range(carried + hidden, len(floats)):
        word = np.int64(bits[n])
        packed = np.int64(0)
        if word & 0x7FFFFFFF:
            exponent = min(np.int64(127), (word >> 23 & 0xFF) - _LEAST_EXPONENT)
            packed = (word >> 31) << 23 | exponent << 16 | (word >> 7 & 0xFFFF)
        at = _put(out, at, packed, 3)
    return at


@njit
def read_state(data: Any, shape: Any, scalars: Any, window: Any, floats: Any, rows: Any) -> int:
    """Read one packed state into arrays and return `FINE`, or what is wrong with it."""
    float_bytes = 4 * shape.carried + 6 * shape.hidden
    if len(data) < HEAD + SCALARS or _number(data, 0, 2) != FORMAT:
        return DAMAGED
    if _number(data, 2, 4) != shape.model:
        return OTHER_MODEL
    used, groups, again = _number(data, 6, 2), _number(data, 8, 2), _number(data, 10, 2)
    width = data[12]
    group_at = HEAD + SCALARS + 2 * WINDOW + float_bytes
    item_at = group_at + groups * (width + 6)
    bit_at = item_at + used * shape.item_bytes
    again_at = bit_at + (used + 7) // 8
    if (width != 1 and width != 4) or used > len(rows):
        return DAMAGED
    if again_at + _AGAIN * again != len(data):
        return DAMAGED
    at = HEAD
    scalars[EVENTS] = _number(data, at, 4)
    scalars[2] = _number(data, at + 4, 4)
    scalars[3] = _number(data, at + 8, 2)
    scalars[KNOWN] = data[at + 10]
    for n in range(3):  # first_ms, last_ms, last_gap_ms
        scalars[4 + n] = _number(data, at + 11 + 8 * n, 8)
    scalars[USED] = used
    for n in range(WINDOW):
        window[n] = _number(data, HEAD + SCALARS + 2 * n, 2)
    _read_floats(data, HEAD + SCALARS + 2 * WINDOW, floats, shape.hidden)
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
        event -= _number(data, at, width)
        second -= _number(data, at + width, 4)
        many += data[at + width + 4] + 1
        if data[at + width + 5] >= len(WEIGHTS):
            return DAMAGED
    if many != used:
        return DAMAGED
    row_at, touched = 0, 0
    for g in range(groups):
        at = group_at + g * (width + 6)
        weight = WEIGHTS[data[at + width + 5]]
        for r in range(row_at, row_at + data[at + width + 4] + 1):
            row = rows[r]
            item = _number(data, item_at + r * item_width, item_width)
            if item < 1 or item > items:
                return DAMAGED
            row.item, row.last_event, row.last_s = item, event, second
            row.again = data[bit_at + (r >> 3)] >> (7 - (r & 7)) & 1
            if row.again:
                if touched == again:
                    return DAMAGED
                _read_counts(data, again_at, again, touched, row)
                touched += 1
            else:
                row.first_day = second // 86_400
                for n in range(6):
                    row.counts[n] = weight
        row_at += data[at + width + 4] + 1
        event += _number(data, at, width)
        second += _number(data, at + width, 4)
    return FINE if touched == again else DAMAGED


@njit
def _read_counts(data: Any, at: int, again: int, nth: int, row: Any) -> None:
    half = _number(data, at + 2 * nth, 2)
    word = np.zeros(1, np.uint32)
    word[0] = (half + (112 << 10)) << 13  # between 2⁻¹⁴ and 65,504
    row.counts[0] = word.view(np.float32)[0]
    row.first_day = _number(data, at + 2 * again + 2 * nth, 2)
    for n in range(5):
        row.counts[1 + n] = STEPS[data[at + 4 * again + 5 * nth + n]]


@njit(cache=True)
def read_states(
    data: Any, starts: Any, shape: Any, scalars: Any, window: Any, floats: Any, rows: Any
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
            found = read_state(state, shape, scalars[user], window[user], floats[user], rows[user])
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
    out: Any, shape: Any, scalars: Any, window: Any, floats: Any, rows: Any, order: Any, keys: Any
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
    at = _put(out, 0, FORMAT, 2)
    at = _put(out, at, shape.model, 4)
    at = _put(out, at, used, 2)
    at = _put(out, at, groups, 2)
    at = _put(out, at, again, 2)
    at = _put(out, at, width, 1)
    at = _put(out, at, min(int(scalars[EVENTS]), 0xFFFFFFFF), 4)
    at = _put(out, at, min(int(scalars[2]), 0xFFFFFFFF), 4)
    at = _put(out, at, int(scalars[3]), 2)
    at = _put(out, at, int(scalars[KNOWN]), 1)
    for n in range(3):
        at = _put(out, at, int(scalars[4 + n]), 8)
    for n in range(WINDOW):
        at = _put(out, at, window[n], 2)
    at = _write_floats(out, at, floats, shape.hidden)
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
    begin, touched = 0, 0
    word = np.zeros(1, np.float32)
    for n in range(used):
        row = rows[order[n]]
        _put(out, item_at + n * item_width, row.item, item_width)
        if row.again:
            out[bit_at + (n >> 3)] |= 0x80 >> (n & 7)
            word[0] = row.counts[0]
            half = (np.int64(word.view(np.uint32)[0]) >> 13) - (112 << 10)
            _put(out, again_at + 2 * touched, half, 2)
            _put(out, again_at + 2 * again + 2 * touched, row.first_day, 2)
            for k in range(5):
                out[again_at + 4 * again + 5 * touched + k] = code_of(row.counts[1 + k])
            touched += 1
        last = n + 1 == used
        if last or rows[order[n + 1]].last_event != row.last_event:
            event, second = int(scalars[EVENTS]), int(scalars[LAST_MS]) // 1000
            if not last:
                event, second = rows[order[n + 1]].last_event, rows[order[n + 1]].last_s
            at = _put(out, at, event - row.last_event, width)
            at = _put(out, at, second - row.last_s, 4)
            at = _put(out, at, n - begin, 1)
            at = _put(out, at, _weight_code(rows, order, begin, n + 1), 1)
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


@njit(cache=True)
def write_states(
    out: Any, shape: Any, scalars: Any, window: Any, floats: Any, rows: Any, ends: Any
) -> None:
    """Pack states one after another into ``out`` and note in ``ends`` where each ends."""
    order, keys = np.empty(rows.shape[1], np.int64), np.empty(rows.shape[1], np.int64)
    at = 0
    for user in range(len(scalars)):
        at += write_state(
            out[at:], shape, scalars[user], window[user], floats[user], rows[user], order, keys
        )
        ends[user] = at
