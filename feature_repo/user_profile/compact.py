"""Short forms in which the explicit profile keeps ids, event types, money, weights and times.

Belongs here: conversions between the outside form of one value and the form stored in a
profile. Not here: any rule about what an event means. The stored forms are integers and
strings only, so a profile's bytes are the same wherever they are made.
"""

from typing import Final

from feature_repo.events.types import list_types

Key = int | str
"""An id as kept in a profile: canonical decimal digits as an integer, else the string."""

MICRO: Final = 1_000_000
"""Stored weights count millionths."""

MILLI: Final = 1_000
"""Stored money and quantities count thousandths."""

MAX_MONEY_MILLI: Final = 10**15
"""Bound of one event's amount: a million million."""

MAX_SUM: Final = 2**62
"""Bound of a sum of amounts either way; MessagePack holds no integer beyond 64 bits."""

DAY_S: Final = 86_400

_MAX_DIGITS: Final = 18

TYPE_NAMES: Final = list_types("code")
"""Canonical event types by their stored number."""

_TYPE_NUMBERS: Final = {name: number for number, name in enumerate(TYPE_NAMES)}


def pack_id(text: str) -> Key:
    """Return an id in its stored form; `str` of the result is the id again.

    Examples
    --------
    >>> pack_id("1095275"), pack_id("007"), pack_id("B-12")
    (1095275, '007', 'B-12')
    """
    if (
        text.isdecimal()
        and text.isascii()
        and len(text) <= _MAX_DIGITS
        and (text[0] != "0" or len(text) == 1)
    ):
        return int(text)
    return text


def pack_type(name: str) -> Key:
    """Return an event type in its stored form: a number when canonical, else the name."""
    return _TYPE_NUMBERS.get(name, name)


def unpack_type(stored: Key) -> str:
    """Return the event type that `pack_type` stored.

    Examples
    --------
    >>> unpack_type(pack_type("purchase")), unpack_type(pack_type("try_on"))
    ('purchase', 'try_on')
    """
    return TYPE_NAMES[stored] if isinstance(stored, int) else stored


def pack_money(amount: float) -> int:
    """Return an amount in thousandths of its currency, cut to ±`MAX_MONEY_MILLI`."""
    return max(-MAX_MONEY_MILLI, min(MAX_MONEY_MILLI, round(amount * MILLI)))


def add_money(total: int, change: int) -> int:
    """Return the sum of two stored amounts, cut to ±`MAX_SUM`."""
    return max(-MAX_SUM, min(MAX_SUM, total + change))


def pack_varint(value: int) -> bytes:
    r"""Return a number ≥ 0 in as few bytes as it needs, seven bits each, low bits first.

    Examples
    --------
    >>> pack_varint(127), pack_varint(300)
    (b'\x7f', b'\xac\x02')
    """
    if value < 0x80:
        return bytes((value,))
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def unpack_varint(packed: bytes, at: int) -> tuple[int, int]:
    """Return the number that `pack_varint` put at ``at``, and where it ends."""
    byte = packed[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = packed[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
