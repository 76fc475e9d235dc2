"""Single numbers of learned states as bytes, and the precision in which they rest; compiled."""

from typing import Any, Final

import numpy as np
from numba import njit

_H_UNIT: Final = np.float32(1 << 23)
_X_UNIT: Final = np.float32(1 << 18)
_LEAST_EXPONENT: Final = 64


@njit
def number(data: Any, at: int, width: int) -> Any:
    """Read an unsigned number of ``width`` bytes, little endian."""
    value = np.int64(0)
    for n in range(width):
        value |= np.int64(data[at + n]) << (8 * n)
    return value


@njit
def put(out: Any, at: int, value: int, width: int) -> int:
    """Write a number and return where it ends."""
    for n in range(width):
        out[at + n] = (value >> (8 * n)) & 0xFF
    return at + width


@njit
def round_h(values: Any) -> None:
    """Round h, which lies within ±1, to 24 bits of fixed point: 1.2e-7 apart."""
    _round(values, _H_UNIT)


@njit
def round_x(values: Any) -> None:
    """Round what a convolution reads and gives to 24 bits of fixed point: 3.8e-6 apart, to ±32."""
    _round(values, _X_UNIT)


@njit
def _round(values: Any, unit: Any) -> None:
    for n in range(len(values)):
        units = np.rint(values[n] * unit)
        values[n] = max(-_H_UNIT, min(_H_UNIT - np.float32(1), units)) / unit


@njit
def round_c(values: Any) -> None:
    """Round c to 16 bits of mantissa: 7.6e-6 of itself at most; below 2⁻⁶² it is 0."""
    bits = values.view(np.uint32)
    for n in range(len(values)):
        kept = (bits[n] + np.uint32(0x40)) & np.uint32(0xFFFFFF80)
        exponent = kept >> 23 & np.uint32(0xFF)
        bits[n] = kept if exponent > _LEAST_EXPONENT else np.uint32(0)


@njit
def read_floats(data: Any, at: int, floats: Any, hidden: int) -> int:
    """Read what the encoder carries, then h and c, and return where they end."""
    carried = len(floats) - 2 * hidden
    bits = floats.view(np.uint32)
    for n in range(carried + hidden):
        units = number(data, at, 3)
        unit = _X_UNIT if n < carried else _H_UNIT
        floats[n] = np.float32(units - (1 << 24) if units >> 23 else units) / unit
        at += 3
    for n in range(carried + hidden, len(floats)):
        packed = number(data, at, 3)
        exponent = packed >> 16 & 0x7F
        bits[n] = (
            (packed >> 23) << 31 | (exponent + _LEAST_EXPONENT) << 23 | (packed & 0xFFFF) << 7
            if exponent
            else 0
        )
        at += 3
    return at


@njit
def write_floats(out: Any, at: int, floats: Any, hidden: int) -> int:
    """Write what the encoder carries, then h and c, and return where they end."""
    carried = len(floats) - 2 * hidden
    bits = floats.view(np.uint32)
    for n in range(carried + hidden):
        unit = _X_UNIT if n < carried else _H_UNIT
        at = put(out, at, int(floats[n] * unit) & 0xFFFFFF, 3)
    for n in range(carried + hidden, len(floats)):
        word = np.int64(bits[n])
        packed = np.int64(0)
        if word & 0x7FFFFFFF:
            exponent = min(np.int64(127), (word >> 23 & 0xFF) - _LEAST_EXPONENT)
            packed = (word >> 31) << 23 | exponent << 16 | (word >> 7 & 0xFFFF)
        at = put(out, at, packed, 3)
    return at
