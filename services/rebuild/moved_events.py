"""Events of an anonymous id that stand in a user's log, given back to it: each once, in order.

An event keeps id, times, content and key. It goes through the append script, so that it is known
when its client sends it again, and the updater folds it. Not here: taking it from the user
(`unlink`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure.unlinked_rows import Link
from feature_repo.errors import ConflictError, StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import translated
from feature_repo.user_profile.consent import read_statements, spellings
from services.event_log.append import CALL_EVENTS, LAG_LIMIT
from services.event_log.keys import dedup_key, owners_key, seen_keys, today
from services.event_log.links import is_claimed, move_event, owner_of
from services.event_log.unprofiled import keep
from services.event_log.writer import APPEND, Entry, append_call
from services.history.users import PartitionHistory

_PROFILING: Final = spellings("profiling")


class LinkedAgainError(ConflictError):
    """While a link was undone an event named both again: nothing more is given back."""


def find_heir(client: Any, link: Link) -> str:
    """Return whose the anonymous id's events are by the store's note: its own, or some user's."""
    with translated():
        note = client.hget(owners_key(partition_of(link.anonymous)), link.anonymous)
    return owner_of(note) or link.anonymous


def give_back(
    client: Any,
    archive: Archive,
    link: Link,
    moved: Sequence[EventRecord],
    *,
    profiled: bool,
    wait: Callable[[int], None],
) -> None:
    """Append those of ``moved`` that the one to whom they belong does not have yet.

    Parameters
    ----------
    moved
        Events of the anonymous id in the user's history, in order.
    profiled
        Whether users who said nothing about it may be profiled.
    wait
        Waits until all that a partition's log holds is applied: a grant of profiling counts for
        what is appended then.

    Raises
    ------
    LinkedAgainError
        If the anonymous id is the user's again.
    StoreUnavailableError
        If the store does not answer or has no room; repeating it is safe.
    """
    heir = find_heir(client, link)
    if heir == link.user:
        raise LinkedAgainError("an event named both again")
    there = PartitionHistory(client, archive, partition_of(heir)).all([heir]).get(heir, [])
    known = {(dedup_key(each), each.received_ms) for _, each in there}
    left = [each for each in moved if (dedup_key(each), each.received_ms) not in known]
    if partition_of(heir) == partition_of(link.user):  # there they are known by the user's log
        _forget_ids(client, partition_of(link.user), [dedup_key(each) for each in left])
    for some in _group(left):
        own = [msgspec.structs.replace(e, user=link.anonymous, linked=None) for e in some]
        for owner, refused in _append(client, own, profiled=profiled).items():
            if owner == link.user:
                raise LinkedAgainError("an event named both again")
            _append(client, [move_event(e, owner) for e in refused], profiled=profiled)
        if _grants_profiling(some[-1]):
            wait(partition_of(heir))


def _group(events: Sequence[EventRecord]) -> Iterator[list[EventRecord]]:
    """Yield events some at a time; what grants profiling is the last of its group."""
    group = list[EventRecord]()
    for event in events:
        group.append(event)
        if len(group) == CALL_EVENTS or _grants_profiling(event):
            yield group
            group = []
    if group:
        yield group


def _grants_profiling(event: EventRecord) -> bool:
    said = read_statements(event)
    return any(said.get(name) for name in _PROFILING)


def _append(
    client: Any, events: Sequence[EventRecord], *, profiled: bool
) -> dict[str, list[EventRecord]]:
    """Append events of one user; return those that belong to another, by that user."""
    partition = partition_of(events[0].user)
    cluster = hasattr(client, "get_node_from_key")
    keys, args = append_call(
        partition, [_to_entry(event) for event in events], lag_limit=LAG_LIMIT, replicas=0,
        cluster=cluster, profiled=profiled,
    )  # fmt: skip
    others = dict[str, list[EventRecord]]()
    with translated():
        answers = APPEND(client, keys, args)
    for event, answer in zip(events, answers, strict=True):
        sign, rest = answer[:1].decode(), answer[1:].decode()
        if sign == ">":
            others.setdefault(rest, []).append(event)
        elif sign == "x":
            raise ConflictError("one of the ids has been erased meanwhile: nothing is left to undo")
        elif sign not in "+-=":
            raise StoreUnavailableError(
                f"the log of partition {partition} takes no more events now: run it again"
            )
    return others


def _to_entry(event: EventRecord) -> Entry:
    sender = event.linked or event.user if event.anonymous else ""
    return (
        partition_of(event.user), dedup_key(event), event.user, event.encode(), event.linked,
        sender, is_claimed(event), *keep(event),
    )  # fmt: skip


def _forget_ids(client: Any, partition: int, names: Sequence[str]) -> None:
    with translated():
        for start in range(0, len(names), CALL_EVENTS):
            for key in seen_keys(partition, today()):
                client.hdel(key, *names[start : start + CALL_EVENTS])
