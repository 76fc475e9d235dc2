"""One event after another through the encoder's recurrent half, compiled.

What `network.encoder` and `network.stacked` write as torch modules for whole histories is
written here once more for one user's next event: content, convolution, LSTM and the repeat
table. The two are tested equal.
Sums have a fixed order and no neighbour, so the same events give the same bytes whoever
shared a batch. Belongs here: arrays. Not here: events as records, bytes of states.

What Python calls is kept compiled on disk (``__pycache__``), what that calls is not: so the two
cannot come from different sources, if whoever changes one of these modules runs ``make``.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from torch import Tensor

from training.history.sequences import GAP_BUCKETS
from training.state.codec import FINE, read_state, write_state
from training.state.item_table_kernels import KNOWN, LAST_MS, ROW, count_event
from training.state.numbers import round_c, round_h, round_x

_EPSILON: Final = np.float32(1e-5)  # of nn.LayerNorm
_ONE: Final = np.float32(1)
_LOG2_E: Final = np.float32(1.4426950408889634)
_LN2_HIGH: Final = np.float32(0.693359375)
_LN2_LOW: Final = np.float32(-2.12194440e-4)
_MOST: Final = np.float32(87.0)  # exp of more leaves single precision
_HALF: Final = np.float32(0.5)
_ROOT_HALF: Final = math.sqrt(0.5)
_P0, _P1, _P2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
_P3, _P4 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1)

Floats = npt.NDArray[np.float32]


class Weights(NamedTuple):
    """Parameters of an encoder, laid out by input, single precision.

    Attributes
    ----------
    item, category, event_type, numeric, numeric_bias, norm, norm_bias
        Of `training.network.encoder.Content`; numeric has shape (5, D).
    gap, hour, weekday, time_norm, time_norm_bias
        Of `training.network.encoder.Temporal`.
    conv, conv_bias
        Shape (kernel, D, F); F is 2·D for ``fused``.
    gated
        How the convolution ends: ``x + gelu(a)·σ(g)`` of ``fused``, or relu of ``stacked``.
    w_input, w_hidden, bias
        Of the LSTM: shapes (D or F, 4H), (H, 4H), (4H,); gates stand as input, forget, cell,
        output.
    """

    item: Floats
    category: Floats
    event_type: Floats
    numeric: Floats
    numeric_bias: Floats
    norm: Floats
    norm_bias: Floats
    gap: Floats
    hour: Floats
    weekday: Floats
    time_norm: Floats
    time_norm_bias: Floats
    conv: Floats
    conv_bias: Floats
    gated: bool
    w_input: Floats
    w_hidden: Floats
    bias: Floats


class Events(NamedTuple):
    """What is read of `training.history.sequences.Histories`, which says what each is."""

    starts: Any
    time_ms: Any
    event_type: Any
    weight: Any
    numeric: Any
    lines: Any
    item: Any
    category: Any


def weights_of(encoder: Any) -> Weights:
    """Return the weights of a `FusedEncoder` or a `StackedEncoder`; large tables are shared."""
    content, times, lstm = encoder.content, encoder.temporal, encoder.lstm
    gated = hasattr(encoder, "convolve")
    conv = encoder.convolve.conv if gated else encoder.conv
    return Weights(
        _array(content.item.weight), _array(content.category.weight), _array(content.kind.weight),
        _array(content.numeric.weight.T), _array(content.numeric.bias),
        _array(content.norm.weight), _array(content.norm.bias),
        _array(times.gap.weight), _array(times.hour.weight), _array(times.weekday.weight),
        _array(times.norm.weight), _array(times.norm.bias),
        _array(conv.weight.permute(2, 1, 0)), _array(conv.bias), gated,
        _array(lstm.weight_ih_l0.T), _array(lstm.weight_hh_l0.T),
        _array(lstm.bias_ih_l0 + lstm.bias_hh_l0),
    )  # fmt: skip


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)


@njit
def product(out: Any, x: Any, matrix: Any) -> None:
    """Add x·W to ``out``, four inputs at a time: that halves what is read and written."""
    size = len(x)
    for k in range(0, size - 3, 4):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        r0, r1, r2, r3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for n in range(len(out)):
            out[n] += x0 * r0[n] + x1 * r1[n] + x2 * r2[n] + x3 * r3[n]
    for k in range(size // 4 * 4, size):
        value, row = x[k], matrix[k]
        for n in range(len(out)):
            out[n] += value * row[n]


@njit
def normalise(x: Any, weight: Any, bias: Any) -> None:
    """Replace x by its layer norm."""
    mean, square = 0.0, 0.0
    for n in range(len(x)):
        mean += x[n]
    mean /= len(x)
    for n in range(len(x)):
        square += (x[n] - mean) ** 2
    scale = np.float32(1.0 / math.sqrt(square / len(x) + _EPSILON))
    for n in range(len(x)):
        x[n] = (x[n] - np.float32(mean)) * scale * weight[n] + bias[n]


@njit
def sigmoid(values: Any, scale: Any, scratch: Any) -> None:
    """Replace values by σ(scale · values), to 2e-7 (exp as in Cephes' ``expf``).

    Parameters
    ----------
    scratch
        As many float32, to lay powers of two together in.
    """
    powers = scratch.view(np.int32)
    for n in range(len(values)):
        x = min(_MOST, max(-_MOST, -scale * values[n]))
        whole = np.floor(x * _LOG2_E + _HALF)
        powers[n] = (np.int32(whole) + 127) << 23
        r = x - whole * _LN2_HIGH - whole * _LN2_LOW
        p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _HALF
        values[n] = p * r * r + r + _ONE
    for n in range(len(values)):
        values[n] = _ONE / (_ONE + values[n] * scratch[n])


@njit
def _tanh(values: Any, scratch: Any) -> None:
    two = np.float32(2)
    sigmoid(values, two, scratch)
    for n in range(len(values)):
        values[n] = two * values[n] - _ONE


@njit
def _lstm(x: Any, h: Any, c: Any, weights: Any, gates: Any, scratch: Any) -> None:
    """Move h and c by one input."""
    size = len(h)
    gates[:] = weights.bias
    product(gates, x, weights.w_input)
    product(gates, h, weights.w_hidden)
    sigmoid(gates[: 2 * size], _ONE, scratch[: 2 * size])
    _tanh(gates[2 * size : 3 * size], scratch[:size])
    sigmoid(gates[3 * size :], _ONE, scratch[:size])
    for n in range(size):
        c[n] = gates[size + n] * c[n] + gates[n] * gates[2 * size + n]
        h[n] = c[n]
    _tanh(h, scratch[:size])
    for n in range(size):
        h[n] *= gates[3 * size + n]
    round_h(h)
    round_c(c)


@njit
def _content(x: Any, weights: Any, item: Any, category: Any, event_type: int, numeric: Any) -> None:
    x[:] = 0
    for line in range(len(item)):
        of_item, of_category = weights.item[item[line]], weights.category[category[line]]
        for n in range(len(x)):
            x[n] += of_item[n] + of_category[n]
    root = np.float32(math.sqrt(max(1, len(item))))
    of_type = weights.event_type[event_type]
    for n in range(len(x)):
        x[n] = x[n] / root + of_type[n] + weights.numeric_bias[n]
    product(x, numeric, weights.numeric)
    normalise(x, weights.norm, weights.norm_bias)


@njit
def _add_times(x: Any, weights: Any, gap: int, hour: int, weekday: int, times: Any) -> None:
    for n in range(len(x)):
        times[n] = weights.gap[gap, n] + weights.hour[hour, n] + weights.weekday[weekday, n]
    normalise(times, weights.time_norm, weights.time_norm_bias)
    for n in range(len(x)):
        x[n] += times[n]


@njit
def _convolve(y: Any, x: Any, carried: Any, weights: Any, scratch: Any) -> None:
    """Put what the convolution over the inputs ``carried`` and x gives into y."""
    width, last = len(x), len(weights.conv) - 1
    y[:] = weights.conv_bias
    for k in range(last):
        product(y, carried[k * width : (k + 1) * width], weights.conv[k])
    product(y, x, weights.conv[last])
    if weights.gated:
        sigmoid(y[width:], _ONE, scratch[:width])
        for n in range(width):
            a = y[n]
            half = np.float32(0.5 * (1.0 + math.erf(a * _ROOT_HALF)))
            y[n] = x[n] + a * half * y[width + n]
    else:
        for n in range(len(y)):
            y[n] = max(np.float32(0), y[n])


@njit
def gap_of(scalars: Any, time_ms: int) -> int:
    """Return the bucket of the gap to the latest event; see `history.sequences.gap_bucket`."""
    if scalars[KNOWN] <= 0:
        return 0
    seconds, bucket = int(max(0.0, time_ms - scalars[LAST_MS])) // 1000 + 1, 1
    while seconds > 1:
        seconds >>= 1
        bucket += 1
    return min(GAP_BUCKETS - 1, bucket)


@njit
def _apply(
    event: int, weights: Any, hidden: int, events: Any, scalars: Any, floats: Any,
    rows: Any, scratch: Any,
) -> None:  # fmt: skip
    """Move one state by one event."""
    x, times, y, gates, powers, bits = scratch
    begin, end, time_ms = events.lines[event], events.lines[event + 1], events.time_ms[event]
    gap, hours = gap_of(scalars, time_ms), time_ms // 3_600_000
    hour, weekday = hours % 24, (hours // 24 + 3) % 7
    items = events.item[begin:end]
    _content(x, weights, items, events.category[begin:end], events.event_type[event],
             events.numeric[event])  # fmt: skip
    _add_times(x, weights, gap, hour, weekday, times)
    carried = len(floats) - 2 * hidden
    h, c = floats[carried : carried + hidden], floats[carried + hidden :]
    width, inputs = len(x), (len(weights.conv) - 1) * len(x)
    _convolve(y, x, floats[:inputs], weights, powers)
    _lstm(y[: len(weights.w_input)], h, c, weights, gates, powers)
    for n in range(inputs - width):
        floats[n] = floats[n + width]
    floats[inputs - width : inputs] = x
    floats[inputs:carried] = y[: carried - inputs]
    round_x(floats[inputs - width : carried])
    count_event(rows, scalars, time_ms, events.weight[event], items, bits)


@njit(cache=True)
def move_states(
    weights: Any, shape: Any, events: Any, data: Any, starts: Any, out: Any, ends: Any
) -> tuple[int, int]:
    """Read each user's state, move it by that user's events, and write it.

    Parameters
    ----------
    shape
        `training.state.codec.Shape`.
    data, starts
        Packed states laid end to end, and where each begins; an empty one is the state before
        the first event.
    out, ends
        Filled with the new states, and with where each ends.

    Returns
    -------
    tuple
        See `training.state.codec.read_states`.
    """
    width, hidden = len(weights.norm), shape.hidden
    scratch = (
        np.empty(width, np.float32), np.empty(width, np.float32),
        np.empty(len(weights.conv_bias), np.float32), np.empty(4 * hidden, np.float32),
        np.empty(max(2 * hidden, width), np.float32), np.zeros(1, np.uint32),
    )  # fmt: skip
    scalars = np.zeros(8, np.float64)
    floats = np.zeros(shape.carried + 2 * hidden, np.float32)
    rows = np.empty(shape.capacity, ROW)
    order, keys = np.empty(shape.capacity, np.int64), np.empty(shape.capacity, np.int64)
    at = 0
    for user in range(len(ends)):
        scalars[:] = 0.0
        floats[:] = 0
        if starts[user + 1] > starts[user]:
            state = data[starts[user] : starts[user + 1]]
            found = read_state(state, shape, scalars, floats, rows)
            if found != FINE:
                return user, found
        for event in range(events.starts[user], events.starts[user + 1]):
            _apply(event, weights, hidden, events, scalars, floats, rows, scratch)
        at += write_state(out[at:], shape, scalars, floats, rows, order, keys)
        ends[user] = at
    return len(ends) - 1, FINE
