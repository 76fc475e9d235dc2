"""The moment at which an anonymous id becomes a known user's, in the update path.

A round's events are looked through for links that their users' rows do not know of yet. The
rows of those users are folded anew, from both histories in order, together with the round's own
events: so the very commit that applies the link writes the merged profile, and whoever is killed
before it leaves nothing behind. So are rows whose bytes cannot be read, if their history is all
there; else their events become dead letters. Not here: who owns an anonymous id
(`services/event_log/link.lua`), the order (`links`), and what a round cannot fold (`late_links`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import PortraitError, StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from feature_repo.online.live_row import LiveState, unreadable
from feature_repo.online.live_rows import read_live
from feature_repo.user_profile import explicit
from services.event_log.batch import Batch, cut_batch
from services.event_log.keys import cursor_key, log_key
from services.event_log.links import Placed, first_links, fresh_links, is_claimed, merge_histories
from services.history.merged_history import LinkedHistory, note_owner, owners_of
from services.history.unjoined import add_unjoined, read_unjoined
from services.history.unlinking import is_unlinking
from services.history.users import PartitionHistory

MERGED_EVENTS: Final = 5_000
"""Events of histories that a round folds anew; what would be more is left to the next round, and
a single longer history to `LateLinks`: an updater that folds for seconds loses its leases."""
_TAIL: Final = 500
_KNOWN: Final = 100_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Work:
    """What a round applies.

    Attributes
    ----------
    rows
        The rows to start from.
    events
        Events of the batches, and before them those of histories folded anew.
    indices
        For each event its index among the batches' events, −1 for one of a history.
    joined
        Users whose events go with a history, or on from another's row.
    """

    rows: Mapping[str, LiveState | None]
    events: Sequence[EventRecord]
    indices: Sequence[int]
    joined: Collection[str] = ()


class Linking:
    """Finds new links and what is to be folded for them.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    """

    def __init__(self, client: Any, archive: Archive) -> None:
        self._client = client
        self._archive = archive
        self._linked = LinkedHistory(client, archive)
        self._known = set[tuple[str, str]]()
        self._rebuilt: dict[int, int] = {}

    def work(
        self,
        batches: list[Batch],
        cursors: Mapping[int, str],
        rows: Mapping[str, LiveState | None],
    ) -> Work:
        """Return what to apply for ``batches``, which are cut short where it is too much.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        """
        fresh = dict[str, set[str]]()
        if any(event.linked is not None for batch in batches for event in batch.events):
            fresh = self._fresh(batches, rows)
        if broken := unreadable(rows):
            _log.error("unreadable_rows", users=len(broken))
            fresh |= {user: fresh.get(user, set()) for user in broken}
        if not fresh:
            return _plain(batches, rows)
        try:
            return self._join_histories(batches, cursors, rows, fresh)
        except StoreUnavailableError:
            raise
        except (PortraitError, OSError) as error:
            _log.error("links_without_history", users=len(fresh), error=str(error)[:200])
            self._leave({user: some for user, some in fresh.items() if user not in broken})
            return _plain(batches, rows)

    def forget(self) -> None:
        """Believe nothing of what rows had: a store that lost its last commits may have less."""
        self._known.clear()

    def note_rebuilt(self, rebuilt: Mapping[int, int]) -> None:
        """Believe nothing of rows that were replaced, by counts of it: a link may be undone."""
        if any(self._rebuilt.get(partition, n) != n for partition, n in rebuilt.items()):
            self.forget()
        self._rebuilt |= rebuilt

    def _fresh(
        self, batches: Sequence[Batch], rows: Mapping[str, LiveState | None]
    ) -> dict[str, set[str]]:
        """Return by user the anonymous ids, with a history, that are linked for the first time."""
        own: dict[str, list[Placed]] = defaultdict(list)
        for batch in batches:
            for event in batch.events:
                if event.linked is not None and (event.user, event.linked) not in self._known:
                    own[event.user].append((LogPosition(0, 0), event))
        fresh = {user: set(fresh_links(rows[user], events)) for user, events in own.items()}
        if len(self._known) > _KNOWN:
            self._known.clear()
        for user, events in own.items():
            self._known |= {
                (user, event.linked) for _, event in events
                if event.linked is not None and event.linked not in fresh[user]
            }  # fmt: skip
        owners = self._owners(fresh, own)
        found = {
            user: {a for a in some if owners.get(a) == (user, True)} for user, some in fresh.items()
        }
        return {user: some for user, some in found.items() if some}

    def _owners(
        self, fresh: Mapping[str, set[str]], own: Mapping[str, Sequence[Placed]]
    ) -> dict[str, tuple[str, bool]]:
        """Return whose the anonymous ids are; of whom the store has lost the note, by these events.

        It dies between a link's note and its event, comes back without the note, and then takes
        the event from the gateway, which repeats its call.
        """
        named = {a for some in fresh.values() for a in some}
        owners = owners_of(self._client, named)
        lost = False
        for _, event in (placed for events in own.values() for placed in events):
            anonymous = event.linked
            if anonymous in named and anonymous not in owners and anonymous is not None:
                if is_unlinking(self._client, event.user, anonymous):
                    continue
                claim = event.anonymous or is_claimed(event)
                note_owner(self._client, anonymous, event.user, claim=claim)
                lost = True
        return owners_of(self._client, named) if lost else owners

    def _join_histories(
        self,
        batches: list[Batch],
        cursors: Mapping[int, str],
        rows: Mapping[str, LiveState | None],
        fresh: Mapping[str, set[str]],
    ) -> Work:
        start, placed, broken = dict(rows), _locate_events(batches, fresh), unreadable(rows)
        for user, anonymous in fresh.items():
            if rows[user] is None:
                start[user] = self._find_settled(placed[user], anonymous)
        slow = {user: row for user in fresh if (row := rows[user]) is start[user]}
        left = {user for user, row in slow.items() if row and row.version > MERGED_EVENTS}
        for partition in {partition_of(user) for user in slow}:
            left |= (slow.keys() & read_unjoined(self._client, partition)) - broken
        own = self._own(slow.keys() - left, cursors)
        theirs = self._linked.theirs({u: [*own[u], *placed[u]] for u in own})
        sizes = dict[str, int]()
        for user, before in own.items():
            size = self._size(user, fresh[user], rows[user], before, theirs[user])
            if size is None or size > MERGED_EVENTS:
                left.add(user)
            elif size:
                sizes[user] = size
        self._leave({user: fresh[user] for user in sorted(left - broken)})
        _shorten(batches, sizes)
        placed = _locate_events(batches, sizes)
        histories = dict[str, list[EventRecord]]()
        for user in sizes:
            events = [*own[user], *placed[user]]
            links = first_links(events)
            if user in broken or fresh[user] & links.keys():
                start[user] = None
                known = {a: found for a, found in theirs[user].items() if a in links}
                histories[user] = merge_histories(events, known)
        moved = {user for user in fresh if start[user] is not rows[user]}
        return _lay_out(batches, start, histories, moved | histories.keys())

    def _size(
        self,
        user: str,
        fresh: Collection[str],
        row: LiveState | None,
        own: Sequence[Placed],
        theirs: Mapping[str, Sequence[Placed]],
    ) -> int | None:
        """Return how many events the user's row is to be folded anew from.

        None if not all of the history is there; 0 if the row holds it already, which names the
        last anonymous ids only.
        """
        links, version = first_links(own), 0 if row is None else row.version
        applied = len(own) + sum(len(found) for a, found in theirs.items() if a in links)
        if applied < version:
            _log.error("link_without_history", user=user, known=applied, version=version)
            return None
        whole = row is None or bool(row.profile)
        if whole and applied == version and links.keys() >= set(fresh):
            self._known |= {(user, anonymous) for anonymous in fresh}
            return 0
        return len(own) + sum(map(len, theirs.values()))

    def _leave(self, links: Mapping[str, Collection[str]]) -> None:
        """Leave links to `LateLinks`: their events are applied without the history."""
        if links:
            _log.warning("links_left_for_later", users=len(links))
            add_unjoined(self._client, links)

    def _find_settled(self, own: Sequence[Placed], anonymous: set[str]) -> LiveState | None:
        """Return the row that a new user goes on from, if that is one anonymous id's as it stands.

        None if it is not that simple: the histories tell then.
        """
        first = own[0][1].linked
        if first is None or anonymous != {first}:
            return None
        partition, needle = partition_of(first), first.encode()
        with translated():
            cursor = self._client.hget(cursor_key(partition), "cursor") or b"0-0"
            tail = self._client.xrange(log_key(partition), b"(" + cursor, "+", count=_TAIL + 1)
        if len(tail) > _TAIL or any(needle in fields.get(b"e", b"") for _, fields in tail):
            return None
        row = read_live(self._client, [first])[0]
        # What was granted may be the anonymous id's alone: see `links`.
        said = {} if row is None else explicit.decode(row.profile).consent
        return None if any(one.granted for one in said.values()) else row

    def _own(
        self, users: Collection[str], cursors: Mapping[int, str]
    ) -> dict[str, Sequence[Placed]]:
        """Return the events of the users' own logs up to the cursors."""
        by_partition: dict[int, list[str]] = defaultdict(list)
        for user in sorted(users):
            by_partition[partition_of(user)].append(user)
        own = dict[str, Sequence[Placed]]()
        for partition, some in by_partition.items():
            history = PartitionHistory(self._client, self._archive, partition)
            cursor = LogPosition.parse(cursors[partition])
            found = history.whole(some, partial(_same, cursor))[1]
            own |= {user: found.get(user, []) for user in some}
        return own


def _same(cursor: LogPosition) -> LogPosition:
    return cursor


def _plain(batches: Sequence[Batch], rows: Mapping[str, LiveState | None]) -> Work:
    events = [event for batch in batches for event in batch.events]
    return Work(rows, events, range(len(events)))


def _locate_events(batches: Sequence[Batch], users: Collection[str]) -> dict[str, list[Placed]]:
    """Return the batches' events of ``users`` with their positions."""
    found = {user: list[Placed]() for user in users}
    for batch in batches:
        for event, index in zip(batch.events, batch.indices, strict=True):
            if event.user in found:
                position = LogPosition.parse(batch.entries[index][0])
                found[event.user].append((position, event))
    return found


def _shorten(batches: list[Batch], sizes: Mapping[str, int]) -> None:
    """Let batches end before what would be more than `MERGED_EVENTS`."""
    total, kept = 0, list[Batch]()
    for batch in batches:
        seen, end = set[str](), len(batch.entries)
        for event, index in zip(batch.events, batch.indices, strict=True):
            if event.user in seen or event.user not in sizes:
                continue
            if total and total + sizes[event.user] > MERGED_EVENTS:
                end = index
                break
            seen.add(event.user)
            total += sizes[event.user]
        if end:
            whole = end == len(batch.entries)
            kept.append(batch if whole else cut_batch(batch.partition, batch.entries[:end]))
    batches[:] = kept


def _lay_out(
    batches: Sequence[Batch],
    rows: Mapping[str, LiveState | None],
    histories: Mapping[str, Sequence[EventRecord]],
    joined: Collection[str],
) -> Work:
    """Return the work: whole histories in the place of the batches' events that are in them."""
    plain = _plain(batches, rows)
    numbers = {_name_event(event): n for n, event in enumerate(plain.events)}
    indices = [n for n, event in enumerate(plain.events) if event.user not in histories]
    events = [plain.events[n] for n in indices]
    for history in histories.values():
        events += history
        indices += [numbers.get(_name_event(event), -1) for event in history]
    return Work(rows, events, indices, joined)


def _name_event(event: EventRecord) -> tuple[str, str, str, str | None, bool]:
    return event.user, event.source, event.id, event.linked, event.anonymous
