"""Anonymous ids that became a known user's: whose events stand where in the user's history.

An anonymous id belongs to the first user whom an event names beside it (`services/log/link.lua`).
From then on its own log is closed, and what it does is written to that user's log; so what
stands in its log is older than the link. A link that only a key of scope ``write`` claimed may be
corrected: from then on the anonymous id is another's, and what it did before stays where it is.
Pure: reading the logs is `history.linked`'s.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from feature_repo import explicit, standing
from feature_repo.archive import LogPosition
from feature_repo.errors import ModelMismatchError
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState

Placed = tuple[LogPosition, EventRecord]
"""An event and where it stands in its partition's log."""


def moved(record: EventRecord, owner: str) -> EventRecord:
    """Return an anonymous id's event as one of the user to whom the id belongs."""
    return msgspec.structs.replace(_without_grants(record), user=owner, linked=record.user)


def claimed(record: EventRecord) -> bool:
    """Say whether a key of scope ``write`` sent it, which anybody may hold."""
    return record.key is not None and record.key.startswith("write:")


def _without_grants(record: EventRecord) -> EventRecord:
    """Return an event as it counts for the user whose the anonymous id is.

    What a key of scope ``write`` granted holds for the anonymous id alone: else a grant for
    anybody would be had by linking an id of one's own with theirs.
    """
    if not claimed(record):
        return record
    said = standing.stated(record.type, record.consent, record.properties)
    if not any(said.values()):
        return record
    denied = {purpose: False for purpose, granted in said.items() if not granted}
    return msgspec.structs.replace(record, consent=denied)


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


def first_links(events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the anonymous ids that a user's events name, each with where it is first named."""
    found = dict[str, LogPosition]()
    for position, event in events:
        if event.linked is not None and event.linked not in found:
            found[event.linked] = position
    return found


def fresh_links(row: LiveState | None, events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the `first_links` of events that the user's row before them does not name.

    A row names the last `feature_repo.standing.MAX_LINKED` only, and one that cannot be read none.
    """
    found = first_links(events)
    if found and row is not None and row.version:
        with suppress(ModelMismatchError):
            for known in explicit.decode(row.profile).standing.linked:
                found.pop(known, None)
    return found


def woven(own: Sequence[Placed], linked: Mapping[str, Sequence[Placed]]) -> list[EventRecord]:
    """Return a user's history: both logs' events in the order of their positions.

    Parameters
    ----------
    own
        The user's events, in log order.
    linked
        The events of each anonymous id that is the user's; they are returned as the user's.

    Notes
    -----
    Logs may lie on servers whose clocks differ. An anonymous id's event stands before the one
    that links it, whatever the clocks said; imported history has no such clock.
    """
    links = first_links(own)
    ordered = [((position, 1, position, event.id), event) for position, event in own]
    for anonymous, events in linked.items():
        link = links[anonymous]
        for position, event in events:
            at = min(position, link) if link.ms else position
            one = msgspec.structs.replace(_without_grants(event), user=own[0][1].user)
            ordered.append(((at, 0, position, event.id), one))
    ordered.sort(key=lambda each: each[0])
    return [event for _, event in ordered]
