"""The logs of a user and of anonymous ids that became theirs, as one history.

Belongs here: in which order their events stand, and what of their consent counts together. Pure:
whose an anonymous id is, and reading the logs, is for `services` to say.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from feature_repo.archive.event_archive import LogPosition
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile import consent
from feature_repo.user_profile.consent import Consent, make_consent, read_statements, spellings

Placed = tuple[LogPosition, EventRecord]
"""An event and where it stands in its partition's log."""


def is_claimed(record: EventRecord) -> bool:
    """Say whether a key of scope ``write`` sent it, which anybody may hold."""
    return record.key is not None and record.key.startswith("write:")


def without_grants(record: EventRecord) -> EventRecord:
    """Return an event as it counts for the user whose the anonymous id is.

    What a key of scope ``write`` granted holds for the anonymous id alone: else a grant for
    anybody would be had by linking an id of one's own with theirs.
    """
    if not is_claimed(record):
        return record
    said = consent.read_statements(record)
    if not any(said.values()):
        return record
    denied = {purpose: False for purpose, granted in said.items() if not granted}
    return msgspec.structs.replace(record, consent=denied)


def first_links(events: Sequence[Placed]) -> dict[str, LogPosition]:
    """Return the anonymous ids that a user's events name, each with where it is first named."""
    found = dict[str, LogPosition]()
    for position, event in events:
        if event.linked is not None and event.linked not in found:
            found[event.linked] = position
    return found


def order_events(
    own: Sequence[Placed], linked: Mapping[str, Sequence[Placed]]
) -> list[tuple[str | None, EventRecord]]:
    """Return both logs' events in the order of their positions, each with the id it is of, if any.

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
    placed = [((position, 1, position, event.id), None, event) for position, event in own]
    found: list[tuple[tuple[LogPosition, int, LogPosition, str], str | None, EventRecord]]
    found = [*placed]
    for anonymous, events in linked.items():
        link = links[anonymous]
        for position, event in events:
            at = min(position, link) if link.ms else position
            one = msgspec.structs.replace(without_grants(event), user=own[0][1].user)
            found.append(((at, 0, position, event.id), anonymous, one))
    found.sort(key=lambda each: each[0])
    return [(anonymous, event) for _, anonymous, event in found]


def merge_histories(
    own: Sequence[Placed], linked: Mapping[str, Sequence[Placed]]
) -> list[EventRecord]:
    """Return a user's history, as one log of both would hold it; see `order_events`.

    Grants that do not count (`find_overruled`) are left out of its events.
    """
    both = order_events(own, linked)
    history = [event for _, event in both]
    for index, purposes in find_overruled(both).items():
        told = read_statements(history[index]).items()
        kept = {n: yes for n, yes in told if not (yes and spellings(n)[0] in purposes)}
        history[index] = msgspec.structs.replace(history[index], consent=kept)
    return history


def find_overruled(both: Sequence[tuple[str | None, EventRecord]]) -> dict[int, dict[str, int]]:
    """Return the grants that a link takes away: by event the purposes, each with that link's event.

    Purposes are named by the first of their `spellings`.

    A purpose that either had denied when the anonymous id became the user's is denied: the
    other's grants from before do not count, whichever is later.
    """
    if not any(anonymous is not None and read_statements(event) for anonymous, event in both):
        return {}
    books = _Books()
    for index, (anonymous, event) in enumerate(both):
        if anonymous is None and event.linked is not None:
            books.join(event.linked, index)
        books.say(anonymous, event, index)
    return books.overruled


class _Books:
    """What each side has said so far, the user's own side under None."""

    def __init__(self) -> None:
        self.overruled: dict[int, dict[str, int]] = defaultdict(dict)
        self._joined = set[str]()
        self._consent: dict[str | None, dict[str, Consent]] = defaultdict(dict)
        self._grants: dict[str | None, dict[str, list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def say(self, anonymous: str | None, event: EventRecord, index: int) -> None:
        side = None if anonymous in self._joined else anonymous
        for purpose, granted in read_statements(event).items():
            new = make_consent(event, purpose, granted=granted)
            consent.say(self._consent[side], spellings(purpose)[0], new, most=2**31)
            if granted:
                self._grants[side][spellings(purpose)[0]].append(index)

    def join(self, anonymous: str, link: int) -> None:
        if anonymous in self._joined:
            return
        self._joined.add(anonymous)
        own = self._consent[None]
        for purpose, theirs in self._consent.pop(anonymous, {}).items():
            known = own.get(purpose)
            if known is not None and known.granted != theirs.granted:
                loser = None if known.granted else anonymous
                for index in self._grants[loser].pop(purpose, []):
                    self.overruled[index][purpose] = link
                own[purpose] = known if theirs.granted else theirs
            else:
                consent.say(own, purpose, theirs, most=2**31)
            self._grants[None][purpose] += self._grants[anonymous].pop(purpose, [])
