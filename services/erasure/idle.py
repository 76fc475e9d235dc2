"""Profiles that nothing happened to for long, taken out of the store beside the service.

It is an erasure without a tombstone: who comes back is somebody new. An event that is on its way
wins, in the step that removes a row; whoever is killed leaves what the next sweep finds. Not here:
files (`feature_repo.erasure`), and what is kept of decisions and letters (`old_entries`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from feature_repo.errors import ModelMismatchError
from feature_repo.events.pseudonyms import is_pseudonym, partition_of
from feature_repo.online.connection import translated
from feature_repo.online.live_row import FIELDS, PROJECT, LiveState, parse_live, row_key
from feature_repo.online.lua import Script
from feature_repo.online.previous_states import previous_key
from feature_repo.user_profile import explicit
from feature_repo.user_profile.consent import find_statement
from services.campaigns.keys import decisions_key, sent_key
from services.event_log.keys import (
    cursor_key,
    log_key,
    owners_key,
    profiling_key,
    unjoined_key,
)
from services.event_log.links import owner_of
from services.event_log.unprofiled import GPC

_FORGET: Final = Script((Path(__file__).parent / "forget.lua").read_text())
_PAGE: Final = 500
_USERS: Final = 5_000
"""Idle users for whom the notes of all anonymous ids are read once."""
_MOST_COMING: Final = 1_000


@dataclass(frozen=True, slots=True)
class IdleBounds:
    """Before which moments, epoch milliseconds, the last event is too long ago; None: never.

    ``standing`` is what stands of each purpose where nobody was asked.
    """

    now_ms: int
    users_ms: int | None
    visitors_ms: int | None
    standing: Mapping[str, bool]


@dataclass(slots=True)
class IdleSweep:
    """What a sweep found and did.

    Attributes
    ----------
    gone
        Pseudonyms of who was removed, or would be.
    counts
        ``profiles`` and ``anonymous_ids`` removed; ``denials``: left, as somebody who comes back
        would count as never asked; ``moved``: left, as something happened to them just then.
    """

    gone: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class _Idle(NamedTuple):
    pseudonym: str
    stamp: bytes
    version: bytes
    note: bytes | None


def sweep_idle(
    client: Any,
    partitions: int,
    bounds: IdleBounds,
    *,
    list_archived: Callable[[], Collection[str]] = frozenset,
    note: Callable[[Iterable[str]], None] = lambda _: None,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> IdleSweep:
    """Remove idle profiles and anonymous ids, some hundred at a time.

    Parameters
    ----------
    list_archived
        Returns who has events in the archive: where their row is missing it is yet to be rebuilt.
    note
        Told who may be gone soon, before they are.
    dry_run
        Whether nothing is removed.
    progress
        Told how many rows were looked at.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; the next sweep finds what is left.
    """
    done, users, seen, known = IdleSweep(), list[_Idle](), 0, cache(list_archived)
    if bounds.users_ms is None and bounds.visitors_ms is None:
        return done
    with translated():
        busy = _read_unjoined(client, partitions)
        for page in _pages(_list_rows(client)):
            found = list(_find_idle(client, page, bounds, done.counts))
            note(idle.pseudonym for idle, _ in found)
            for idle, visitor in found:
                if idle.pseudonym in busy:
                    done.counts["moved"] += 1
                elif visitor:
                    _forget(client, idle, done, "anonymous_ids", dry_run=dry_run)
                else:
                    users.append(idle)
            seen += len(page)
            progress(seen)
            if len(users) >= _USERS:
                _forget_users(client, partitions, users, busy, done, known, note, dry_run=dry_run)
                users.clear()
        if bounds.users_ms is not None:
            _forget_users(client, partitions, users, busy, done, known, note, dry_run=dry_run)
    return done


def _list_rows(client: Any) -> Iterator[str]:
    """Yield the pseudonyms that have a row; one may come twice."""
    for key in client.scan_iter(match=b"*" + PROJECT.encode(), count=_PAGE):
        name = key[-40:-8].decode("ascii", "replace")
        if is_pseudonym(name) and key == row_key(name):
            yield name


def _find_idle(
    client: Any, page: Sequence[str], bounds: IdleBounds, counts: Counter[str]
) -> Iterator[tuple[_Idle, bool]]:
    """Yield who of a page is idle, and whether they are visitors that are nobody's."""
    with client.pipeline(transaction=False) as pipe:
        for one in page:
            pipe.hmget(row_key(one), FIELDS)
            pipe.hget(owners_key(partition_of(one)), one)
            pipe.hget(profiling_key(partition_of(one)), one)
        answers = pipe.execute()
    for n, one in enumerate(page):
        values, note, said = answers[3 * n : 3 * n + 3]
        if owner_of(note) is not None:
            continue  # it goes with its user
        try:
            row = parse_live(values)
        except ModelMismatchError:
            continue
        if row is None:
            yield from _judge_batch_row(client, one, note, bounds)
            continue
        profile = explicit.decode(row.profile)
        visitor = note is not None or profile.anonymous
        before_ms = bounds.visitors_ms if visitor else bounds.users_ms
        if before_ms is None or row.time_ms >= before_ms:
            continue
        # Nothing is kept of what happens to who denies profiling: they only seem idle.
        denied = (said or b"").startswith(b"0") or _denies(
            row, bounds, ["profiling"] if visitor else bounds.standing
        )
        if denied:
            counts["denials"] += 1
        else:
            yield _Idle(one, values[4], values[2] or b"", note), visitor


def _judge_batch_row(
    client: Any, one: str, note: bytes | None, bounds: IdleBounds
) -> Iterator[tuple[_Idle, bool]]:
    """Yield whose row has features of a batch and nothing live, the newest of them long ago."""
    visitor = note is not None
    before_ms = bounds.visitors_ms if visitor else bounds.users_ms
    fields = client.hgetall(row_key(one))
    stamps = [v for k, v in fields.items() if k.startswith(b"_ts:")]
    if before_ms is not None and stamps and max(map(_to_ms, stamps)) < before_ms:
        yield _Idle(one, b"", b"", note), visitor


def _to_ms(stamp: bytes) -> int:
    from google.protobuf.timestamp_pb2 import Timestamp

    return int(Timestamp.FromString(stamp).seconds) * 1000


def _denies(row: LiveState, bounds: IdleBounds, purposes: Any) -> bool:
    """Say whether a user denied what stands where nobody was asked, but by the browser's signal."""
    consent = explicit.decode(row.profile).consent
    for purpose in purposes:
        said = find_statement(consent, purpose, bounds.now_ms // 1000)
        if bounds.standing.get(purpose) and said and not said.granted and said.source != GPC:
            return True
    return False


def _forget_users(
    client: Any,
    partitions: int,
    users: Sequence[_Idle],
    busy: set[str],
    done: IdleSweep,
    list_archived: Callable[[], Collection[str]],
    note_names: Callable[[Iterable[str]], None],
    *,
    dry_run: bool,
) -> None:
    """Remove users, then the anonymous ids that were theirs, those of earlier sweeps too."""
    wanted = {each.pseudonym: each for each in users}
    theirs = dict[str, tuple[str, bytes]]()
    for partition in range(partitions):
        for name, note in client.hscan_iter(owners_key(partition), count=1000):
            owner = owner_of(note)
            if owner is not None and b">" not in note:
                theirs[name.decode()] = owner, note
            elif owner is not None:  # what it did is two people's
                for one in note.decode().rstrip("~").replace("+", "").split(">"):
                    wanted.pop(one, None)
    gone = set[str]()
    for each in wanted.values():
        if _forget(client, each, done, "profiles", dry_run=dry_run):
            gone.add(each.pseudonym)
    if not isinstance(client, redis.RedisCluster):  # there no step looks at both
        owners = sorted({owner for owner, _ in theirs.values()} - wanted.keys())
        rowless = find_rowless(client, owners)
        gone |= rowless.difference(list_archived()) if rowless else rowless
    note_names(anonymous for anonymous, (owner, _) in theirs.items() if owner in gone)
    for anonymous, (owner, note) in theirs.items():
        if owner in gone and anonymous not in busy:
            stamp, version = client.hmget(row_key(anonymous), FIELDS[4], FIELDS[2])
            idle = _Idle(anonymous, stamp or b"", version or b"", note)
            _forget(client, idle, done, "anonymous_ids", dry_run=dry_run, owner=owner)


def find_rowless(client: Any, names: Iterable[str]) -> set[str]:
    """Return who has no row: a killed sweep left what was theirs, or they are just beginning."""
    found = set[str]()
    for page in _pages(names):
        with client.pipeline(transaction=False) as pipe:
            for one in page:
                pipe.exists(row_key(one))
            found |= {one for one, there in zip(page, pipe.execute(), strict=True) if not there}
    return found


def _forget(
    client: Any, idle: _Idle, done: IdleSweep, what: str, *, dry_run: bool, owner: str = ""
) -> bool:
    one, partition = idle.pseudonym, partition_of(idle.pseudonym)
    if one in done.gone:
        return False
    keys = [cursor_key(partition), log_key(partition), row_key(one), owners_key(partition),
            profiling_key(partition), previous_key(one)]  # fmt: skip
    if owner and not isinstance(client, redis.RedisCluster):
        theirs = partition_of(owner)
        keys += [cursor_key(theirs), log_key(theirs), row_key(owner)]
    note = b"-" if idle.note is None else idle.note
    args = [one, FIELDS[4], FIELDS[2], idle.stamp, idle.version, note, _MOST_COMING, owner]
    answer = b"gone" if dry_run else _FORGET(client, keys, args)
    if answer != b"gone":
        done.counts["moved"] += 1
        return False
    if not dry_run:
        forget_ledger(client, one)
    done.gone.add(one)
    done.counts[what] += 1
    return True


def forget_ledger(client: Any, pseudonym: str) -> None:
    """Remove what campaigns decided about somebody and sent them."""
    client.delete(decisions_key(pseudonym), sent_key(pseudonym))


def _pages(names: Iterable[str]) -> Iterator[list[str]]:
    left = iter(names)
    while page := list(islice(left, _PAGE)):
        yield page


def _read_unjoined(client: Any, partitions: int) -> set[str]:
    """Return who waits for a history to be joined to theirs."""
    return {
        one
        for partition in range(partitions)
        for name in client.smembers(unjoined_key(partition))
        for one in name.decode().split(" ")
    }
