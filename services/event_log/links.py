"""Anonymous ids that became a known user's: whose events stand where in the user's history.

An anonymous id belongs to the first user whom an event names beside it (`event_log/link.lua`).
From then on its own log is closed, and what it does is written to that user's log; so what
stands in its log is older than the link. A link that only a key of scope ``write`` claimed may be
corrected: from then on the anonymous id is another's, and what it did before stays where it is.
Pure: reading the logs is `history.merged_history`'s; how two logs become one is
`user_profile.merged_history`'s.
"""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from feature_repo.archive.event_archive import LogPosition
from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from feature_repo.user_profile import explicit
from feature_repo.user_profile.merged_history import (
    Placed,
    first_links,
    is_claimed,
    merge_histories,
    without_grants,
)

__all__ = [
    "Placed", "first_links", "first_owner_of", "fresh_links", "is_claimed", "merge_histories",
    "move_event", "owner_of", "without_grants",
]  # fmt: skip


def move_event(record: EventRecord, owner: str) -> EventRecord:
    """Return an anonymous id's event as one of the user to whom the id belongs."""
    return msgspec.structs.replace(without_grants(record), user=owner, linked=record.user)


def owner_of(value: bytes | None) -> str | None:
    """Return whose an anonymous id is by the store's note of it; None: nobody's yet."""
    if not value:
        return None
    first, _, now = value.decode().rstrip("~").partition(">")
    return now or first.removesuffix("+")


def first_owner_of(value: bytes | None) -> tuple[str, bool] | None:
    """Return who has what the anonymous id did before its first link, and whether it did anything.

    None: nobody has it yet.
    """
    if not value:
        return None
    first = value.decode().rstrip("~").partition(">")[0]
    return first.removesuffix("+"), first.endswith("+")


def fresh_links(row: LiveState | None, events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the `first_links` of events that the user's row before them does not name.

    A row names the last `feature_repo.user_profile.consent.MAX_LINKED` only, and one that cannot
    be read none.
    """
    found = first_links(events)
    if found and row is not None and row.version:
        with suppress(ModelMismatchError):
            for known in explicit.decode(row.profile).linked:
                found.pop(known, None)
    return found
