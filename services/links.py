"""Anonymous ids that became a known user's: whose events stand where in the user's history.

An anonymous id belongs to the first user whom an event names beside it (`services/log/link.lua`).
From then on its own log is closed, and what it does is written to that user's log; so what
stands in its log is older than the link. Pure: reading the logs is `history.linked`'s.
"""

from collections.abc import Mapping, Sequence

import msgspec

from feature_repo import explicit
from feature_repo.archive import LogPosition
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState

Placed = tuple[LogPosition, EventRecord]
"""An event and where it stands in its partition's log."""


def moved(record: EventRecord, owner: str) -> EventRecord:
    """Return an anonymous id's event as one of the user to whom the id belongs."""
    return msgspec.structs.replace(record, user=owner, linked=record.user)


def owner_of(value: bytes | None) -> str | None:
    """Return the user that the store's note of an anonymous id names; None: nobody's yet."""
    return value.decode().removesuffix("+") if value else None


def first_links(events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the anonymous ids that a user's events name, each with where it is first named."""
    found = dict[str, LogPosition]()
    for position, event in events:
        if event.linked is not None and event.linked not in found:
            found[event.linked] = position
    return found


def fresh_links(row: LiveState | None, events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the `first_links` of events that the user's row before them does not know of."""
    found = first_links(events)
    if found and row is not None and row.version:
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
            one = msgspec.structs.replace(event, user=own[0][1].user)
            ordered.append(((at, 0, position, event.id), one))
    ordered.sort(key=lambda each: each[0])
    return [event for _, event in ordered]
