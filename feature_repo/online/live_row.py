"""The live-state row: its key and its bytes in Feast's Redis layout.

Pure encoding, no input or output. A user's row is one Redis hash shared by all feature
views of the entity; these functions make the fields of the view ``live_state`` so that any
Feast client reads them. Sending them is `feast_stores.online`'s work. Protobuf's bytes are
read and written by hand: importing Feast takes a process longer than all else at its start.
"""

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import mmh3
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.errors import ModelMismatchError

PROJECT: Final = "portrait"
"""Feast project; part of every online key."""
LIVE_VIEW: Final = "live_state"
"""Feature view that only the updater's commit may write."""
USER_JOIN_KEY: Final = "user"

_BYTES: Final = tuple(bytes([n]) for n in range(256))
_TEXT = struct.pack("<I", 2)  # Feast's ValueType.STRING
_IN_BYTES, _IN_TEXT, _IN_INT64 = b"\n", b"\x12", b" "  # tags of the fields of Feast's Value
_KEY_HEAD: Final = (
    struct.pack("<I", 1)
    + _TEXT
    + struct.pack("<I", len(USER_JOIN_KEY))
    + USER_JOIN_KEY.encode()
    + _TEXT
)


def field_key(view: str, feature: str) -> bytes:
    """Return the hash field in which Feast keeps ``view:feature``."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


FIELDS: Final[tuple[bytes, ...]] = (
    *(field_key(LIVE_VIEW, name) for name in ("profile", "learned", "version", "model")),
    f"_ts:{LIVE_VIEW}".encode(),
)
"""Hash fields of the live view: profile, learned, version, model, time; in this order."""


@dataclass(frozen=True, slots=True)
class LiveState:
    """What the updater keeps of one user.

    Attributes
    ----------
    profile
        `feature_repo.user_profile.explicit` encoding.
    learned
        Encoder state; empty when there is none.
    version
        Number of events applied; never decreases.
    model
        Version of the model that made ``learned``; empty when there is none.
    time_ms
        Time of the newest applied event, epoch milliseconds.
    """

    profile: bytes
    learned: bytes
    version: int
    model: str
    time_ms: int


def row_key(pseudonym: str) -> bytes:
    """Return the Redis key of a user's row (Feast's serialized entity key v3 + project).

    Examples
    --------
    >>> row_key("{p007}" + "a" * 26)[-40:]
    b'{p007}aaaaaaaaaaaaaaaaaaaaaaaaaaportrait'
    """
    name = pseudonym.encode()
    return _KEY_HEAD + struct.pack("<I", len(name)) + name + PROJECT.encode()


def live_values(state: LiveState) -> tuple[bytes, ...]:
    """Return the values of `FIELDS` for one state.

    Notes
    -----
    The bytes are protobuf's for Feast's ``Value``, written by hand: that takes half the time
    of message objects, and every event pays for it.
    """
    seconds, millis = divmod(state.time_ms, 1000)
    return (
        _IN_BYTES + _varint(len(state.profile)) + state.profile,
        _IN_BYTES + _varint(len(state.learned)) + state.learned,
        version_value(state.version),
        model_value(state.model),
        Timestamp(seconds=seconds, nanos=millis * 1_000_000).SerializeToString(),
    )


def version_value(version: int) -> bytes:
    """Return the value of a row's version field; `replace_live` compares it as it is stored."""
    return _IN_INT64 + _varint(version)


def model_value(model: str) -> bytes:
    """Return the value of a row's field of the model."""
    name = model.encode()
    return _IN_TEXT + _varint(len(name)) + name


def parse_version(value: bytes) -> int:
    """Read the value of a row's version field; `ValueError` if it is none."""
    return _read_varint(value, _IN_INT64)[0] if value else 0


def _payload(value: bytes | None, tag: bytes) -> bytes:
    """Return what a value of bytes or text holds; empty for an absent one."""
    if not value:
        return b""
    size, start = _read_varint(value, tag)
    if start + size != len(value):
        raise ValueError(f"a value of {len(value)} bytes says that it has {start + size}")
    return value[start:]


def _read_varint(value: bytes, tag: bytes) -> tuple[int, int]:
    """Return the number behind the tag of a value, and where it ends."""
    if value[:1] != tag:
        raise ValueError(f"a value begins with {value[:1]!r}, not {tag!r}")
    number = 0
    for at, byte in enumerate(value[1:11], 1):
        number |= (byte & 0x7F) << 7 * (at - 1)
        if byte < 0x80:
            return number, at + 1
    raise ValueError(f"a value of {len(value)} bytes ends before its number")


def _varint(number: int) -> bytes:
    """Return a protobuf varint of a number of at least 0."""
    if number < 0x80:
        return _BYTES[number]
    if number < 0x4000:
        return _BYTES[number & 0x7F | 0x80] + _BYTES[number >> 7]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def parse_live(values: Sequence[bytes | None]) -> LiveState | None:
    """Read the reply of ``HMGET row *FIELDS``; None when the user has no live row.

    Raises
    ------
    ModelMismatchError
        If the bytes are no row.
    """
    profile, learned, version, model, stamp = values
    if stamp is None or profile is None:
        return None
    try:
        moment = Timestamp.FromString(stamp)
        return LiveState(
            profile=_payload(profile, _IN_BYTES),
            learned=_payload(learned, _IN_BYTES),
            version=parse_version(version or b""),
            model=_payload(model, _IN_TEXT).decode(),
            time_ms=moment.seconds * 1000 + moment.nanos // 1_000_000,
        )
    except (ValueError, DecodeError) as error:
        raise ModelMismatchError(f"a user's row in the store cannot be read: {error}") from error


def parse_any(values: Sequence[bytes | None]) -> LiveState | None:
    """Do what `parse_live` does; of bytes that are no row only the version, if that is there."""
    try:
        return parse_live(values)
    except ModelMismatchError:
        version = 0
        with suppress(ValueError):
            version = parse_version(values[2] or b"")
        return LiveState(profile=b"", learned=b"", version=version, model="", time_ms=0)


def unreadable(rows: Mapping[str, LiveState | None]) -> set[str]:
    """Return the users of whose rows `parse_any` found no more than the version."""
    return {user for user, row in rows.items() if row is not None and not row.profile}
