"""Names of a partition's keys, and what makes an event known again.

Pure naming. All keys of a partition carry its number in braces, so they share a slot.
"""

import time
from typing import Final

import orjson

from feature_repo.events.schema import DEDUP_WINDOW_MS, EventRecord
from feature_repo.user_profile.merged_history import is_claimed

DAY_MS: Final = 86_400_000
_DAYS_BACK: Final = DEDUP_WINDOW_MS // DAY_MS
SEEN_TTL_S: Final = (_DAYS_BACK + 2) * 86_400
"""How long a day's event ids are kept."""


def log_key(partition: int) -> bytes:
    """Return the stream of a partition."""
    return b"{p%03d}log" % partition


def cursor_key(partition: int) -> bytes:
    """Return the hash with ``cursor`` (applied) and ``archived``, both stream ids."""
    return b"{p%03d}cursor" % partition


def erased_key(partition: int) -> bytes:
    """Return the set of pseudonyms whose events are never again taken."""
    return b"{p%03d}erased" % partition


def owners_key(partition: int) -> bytes:
    """Return the hash of anonymous ids that have events of their own or belong to a user.

    The value is empty, or the user's pseudonym, with a ``+`` behind if there were own events, and
    a ``~`` at the end while only a key of scope ``write`` claimed the link. A link that was
    corrected since has ``>`` and the present owner behind.
    """
    return b"{p%03d}owners" % partition


def voided_key(partition: int) -> bytes:
    """Return the set of entries whose dead letters were retried or dropped."""
    return b"{p%03d}voided" % partition


def unjoined_key(partition: int) -> bytes:
    """Return the set of links whose user's row lacks what the anonymous id did before."""
    return b"{p%03d}unjoined" % partition


def unlinking_key(partition: int) -> bytes:
    """Return the set of links of a partition's users that are being undone, as `unjoined_key`'s."""
    return b"{p%03d}unlinking" % partition


def applied_channel(partition: int) -> bytes:
    """Return the channel on which every commit announces its cursor."""
    return b"{p%03d}applied" % partition


def profiling_key(partition: int) -> bytes:
    """Return the hash of what users said about profiling; see the append script."""
    return b"{p%03d}profiling" % partition


def seen_keys(partition: int, day: int) -> list[bytes]:
    """Return the hashes of known event ids: of ``day``, of those before it, and of the next."""
    days = [day, *(day - back for back in range(1, _DAYS_BACK + 1)), day + 1]
    return [b"{p%03d}seen:%d" % (partition, each) for each in days]


def dedup_key(record: EventRecord) -> str:
    """Return what makes an event known again, within its user's partition.

    What a key of scope ``write`` sent has ids of its own (the append script knows the mark): it is
    a duplicate of what others sent too, and makes nothing of theirs one.
    """
    name = f"{record.source}\x1f{record.id}"
    if record.source == "~" or name.count("\x1f") > 1:  # else it might read as another's
        name = orjson.dumps([record.source, record.id]).decode()
    return f"~\x1f{name}" if is_claimed(record) else name


def today() -> int:
    """Return the number of the day by this machine's clock."""
    return time.time_ns() // 1_000_000 // DAY_MS
