"""The update path step by step, in any order that hypothesis thinks of, on a real server.

What must hold is told by a naive model: the events acknowledged, and the rows that folding
log and archive from the beginning gives.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import redis
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, drain, event, loop
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rebuilt_shop import history, lags

from feature_repo.archive.compaction import compact
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import FencedError, StaleRowsError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online import live_rows
from feature_repo.online.live_rows import read_live
from services.event_log.archiver import Archiver
from services.event_log.dead_letters import drop, letters, retry
from services.event_log.keys import cursor_key, erased_key, log_key
from services.event_log.receipt import Appended
from services.models.transition import Transition
from services.rebuild.refold import refold
from services.update.updater import UpdaterLoop

USERS = tuple(f"u{n}" for n in range(5))
EXAMPLES = 12
STEPS = 30


class UpdatePath(RuleBasedStateMachine):
    """Two updaters that nothing keeps from getting into each other's way.

    Parameters
    ----------
    url, client
        The server.
    """

    def __init__(self, url: str, client: "redis.Redis") -> None:
        super().__init__()
        client.flushall()
        self.url, self.client = url, client
        self.folder = tempfile.TemporaryDirectory()
        home = Path(self.folder.name)
        self.archive = Archive(home / "archive" / "events")
        self.updaters = [loop(url, home, Sum()) for _ in range(2)]
        self.sent: dict[str, tuple[EventRecord, Appended]] = {}
        self.entries = Counter[str]()  # how often each id must stand in log and archive
        self.erased = set[str]()
        self.versions: dict[str, int] = {}
        self.commits: list[tuple[int, dict[str, Any]]] = []
        self.patches = [
            mock.patch("services.update.updater.commit", self.commit),
            mock.patch("services.update.updater._JOIN_S", 0.001),  # nobody else acts meanwhile
            mock.patch("services.event_log.reader.BLOCK_MS", 1),
        ]
        for patch in self.patches:
            patch.start()

    def commit(self, client: Any, partition: int, **given: Any) -> None:
        self.commits.append((partition, given))
        live_rows.commit(client, partition, **given)

    def teardown(self) -> None:
        """I1 and I2, when everything is applied."""
        try:
            self.free()
            for _ in range(20):
                drain(self.updaters[0])
            assert not [p for p in range(PARTITIONS) if lags(self.client, p)]
            self.rows_are_the_fold()
        finally:
            for patch in self.patches:
                patch.stop()
            for updater in self.updaters:
                for each in (updater._reader, updater._quick, updater._client):
                    each.close()
            self.folder.cleanup()

    # clients

    @rule(
        users=st.lists(st.sampled_from(USERS), min_size=1, max_size=4),
        poison=st.integers(0, 9),
        linked=st.none() | st.sampled_from(USERS),
    )
    def post(self, users: list[str], poison: int, linked: str | None) -> None:
        """New events; I6: they are accepted, unless their user or linked id is erased."""
        link = None if linked is None else PSEUDONYMS.of_user(linked)
        records = [
            event(user, f"{'poison' if n == poison else 'e'}-{len(self.sent) + n}", linked=link)
            for n, user in enumerate(users)
        ]
        for record, one in zip(records, append(self.url, records), strict=True):
            gone = record.user in self.erased or record.linked in self.erased
            assert one.status == ("erased" if gone else "accepted")
            self.sent[record.id] = record, one
            if not gone:
                self.entries[record.id] += 1

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def post_again(self, data: st.DataObject) -> None:
        """I6: a duplicate gets the same receipt; it stands in the log no second time."""
        record, first = self.sent[data.draw(st.sampled_from(sorted(self.sent)))]
        [again] = append(self.url, [record])
        if record.user in self.erased or record.linked in self.erased:
            assert again.status == "erased"
        elif first.status != "erased":
            assert again.status == "duplicate"
            assert again.position == first.position or self.entries[record.id] > 1  # retried

    @rule(user=st.sampled_from(USERS[3:]))
    def erase(self, user: str) -> None:
        pseudonym = PSEUDONYMS.of_user(user)
        self.client.sadd(erased_key(partition_of(pseudonym)), pseudonym)
        self.erased.add(pseudonym)

    # updaters

    @rule(n=st.integers(0, 1))
    def round(self, n: int) -> None:
        drain(self.updaters[n])

    @rule(n=st.integers(0, 1), times=st.integers(1, 3))
    def traffic(self, n: int, times: int) -> None:
        """Much of what happens is that all goes well."""
        for _ in range(times):
            self.post(list(USERS), 9, None)
            drain(self.updaters[n])

    @rule(n=st.integers(0, 1))
    def steal(self, n: int) -> None:
        """An updater takes every lease, as if the other had been silent."""
        for partition in range(PARTITIONS):
            self.updaters[n]._leases.take(partition, force=True)

    @rule(n=st.integers(0, 1))
    def round_without_looking(self, n: int) -> None:
        """I4: an updater that does not know whether its leases are still its own."""
        updater = self.updaters[n]
        own = {p for p, epoch in updater._leases.epochs.items() if self.epoch(p) == epoch}
        before = self.cursors()
        updater._round()
        assert all(p in own for p in range(PARTITIONS) if self.cursors()[p] != before[p])

    @rule(
        n=st.integers(0, 1),
        what=st.sampled_from(["overtaken", "fenced", "rebuilt", "archived"]),
    )
    def round_interrupted(self, n: int, what: str) -> None:
        """Something happens while an updater has a batch in hand; its commit comes after."""
        updater, other = self.updaters[n], self.updaters[1 - n]
        stolen = list[list[bytes]]()
        self.post(list(USERS), 9, None)

        def interrupt() -> None:
            if what in {"overtaken", "fenced"}:
                self.steal(1 - n)
            if what == "overtaken":
                drain(other)
            elif what == "rebuilt":
                self.rebuild()
            elif what == "archived":
                self.archive_applied()
            if what in {"overtaken", "fenced"}:
                stolen.append(self.cursors())

        with before_commit(updater, interrupt):
            drain(updater)
        assert all(cursors == self.cursors() for cursors in stolen)  # I4

    @precondition(lambda self: self.commits)
    @rule(data=st.data())
    def commit_arrives_again(self, data: st.DataObject) -> None:
        """A commit that was on its way for long changes nothing, whoever sent it."""
        self.commit_again(*data.draw(st.sampled_from(self.commits[-12:]), label="commit"))

    @rule(n=st.integers(0, 1))
    def own_commit_arrives_again(self, n: int) -> None:
        """The same, while its owner still holds the lease and has gone on."""
        self.steal(n)
        earlier = len(self.commits)
        self.traffic(n, 2)
        if len(self.commits) > earlier:
            self.commit_again(*self.commits[earlier])

    def commit_again(self, partition: int, given: dict[str, Any]) -> None:
        before = self.cursors()
        # Refused, unless it is the last one: then it is known to be done.
        with contextlib.suppress(FencedError, StaleRowsError):
            live_rows.commit(self.client, partition, **given)
            assert given["new_cursor"].encode() == before[partition]
        assert self.cursors() == before

    # the rest of the house

    @rule()
    def archive_applied(self) -> None:
        Archiver(self.client, self.archive).run(range(PARTITIONS))

    @rule()
    def merge_parts(self) -> None:
        archived = {
            p: LogPosition.parse(self.client.hget(cursor_key(p), "archived") or b"0-0")
            for p in range(PARTITIONS)
        }
        compact(self.archive, archived, many=1, grace_s=0)

    @rule()
    def rebuild(self) -> None:
        """Rows made again while whatever else goes on."""
        for partition in range(PARTITIONS):
            users = [e for e in map(PSEUDONYMS.of_user, USERS) if partition_of(e) == partition]
            if users:
                done = refold(self.client, self.archive, Transition(Sum()), partition, users)
                assert not done.short

    @rule(again=st.booleans())
    def settle_letters(self, again: bool) -> None:
        """Retry or drop all dead letters: each stands in the log as often as it was tried."""
        found = {one.id: one for one in letters(self.client, range(PARTITIONS))}
        answers = (retry if again else drop)(self.client, range(PARTITIONS))
        assert answers.keys() == found.keys()
        for name, answer in answers.items():
            record = found[name].event
            assert record is not None
            gone = record.user in self.erased or record.linked in self.erased
            assert answer == ("dropped" if not again else "erased" if gone else "retried")
            if answer == "retried":
                self.entries[record.id] += 1

    # what must hold

    @invariant()
    def every_event_is_in_log_or_archive(self) -> None:
        """I1: exactly once, however often it was sent, archived or merged."""
        places = self.places()
        assert Counter(name for name, _ in places) == self.entries

    @invariant()
    def versions_never_decrease(self) -> None:
        """I3."""
        pseudonyms = [PSEUDONYMS.of_user(user) for user in USERS]
        for pseudonym, row in zip(pseudonyms, read_live(self.client, pseudonyms), strict=True):
            version = 0 if row is None else row.version
            assert version >= self.versions.get(pseudonym, 0)
            self.versions[pseudonym] = version

    @invariant()
    def the_log_keeps_what_is_not_applied_and_archived(self) -> None:
        """I5."""
        for partition in range(PARTITIONS):
            held = self.client.hgetall(cursor_key(partition))
            cursor, archived = (
                LogPosition.parse(held.get(name, b"0-0")) for name in (b"cursor", b"archived")
            )
            assert archived <= cursor

    # looks

    def rows_are_the_fold(self) -> None:
        """I2; the row of who was erased is written no more."""
        folded = Transition(Sum()).fold(history(self.client, self.archive))
        pseudonyms = [PSEUDONYMS.of_user(user) for user in USERS]
        rows = dict(zip(pseudonyms, read_live(self.client, pseudonyms), strict=True))
        there = {pseudonym: row for pseudonym, row in rows.items() if row}
        for pseudonym in self.erased:
            there.pop(pseudonym, None)
            folded.pop(pseudonym, None)
        assert there == folded

    def places(self) -> set[tuple[str, tuple[int, int]]]:
        """Return every event's id with its places; what log and archive both have counts once."""
        found = set[tuple[str, tuple[int, int]]]()
        for part in self.archive.parts():
            rows = pq.read_table(part, columns=["log_ms", "log_seq", "event_id"]).to_pylist()
            new = {(row["event_id"], (row["log_ms"], row["log_seq"])) for row in rows}
            assert len(new) == len(rows)
            assert not new & found
            found |= new
        for partition in range(PARTITIONS):
            for entry, fields in self.client.xrange(log_key(partition)):
                ms, seq = entry.split(b"-")
                found.add((EventRecord.decode(fields[b"e"]).id, (int(ms), int(seq))))
        return found

    def cursors(self) -> list[bytes]:
        return [self.client.hget(cursor_key(p), "cursor") or b"" for p in range(PARTITIONS)]

    def epoch(self, partition: int) -> int:
        return int(self.client.hget(b"{p%03d}lease" % partition, "epoch") or 0)

    def free(self) -> None:
        self.updaters[1]._leases.leave()
        self.steal(0)


@contextlib.contextmanager
def before_commit(updater: UpdaterLoop, interrupt: Callable[[], None]) -> Iterator[None]:
    """Do something once, before the next commit of an updater."""
    commit, waiting = updater._commit, [interrupt]

    def interrupted(*given: Any) -> bool:
        while waiting:
            waiting.pop()()
        return commit(*given)

    updater._commit = interrupted  # type: ignore[method-assign]
    try:
        yield
    finally:
        del updater._commit


def test_every_order_of_steps_keeps_the_invariants(
    redis_url: str, store_client: redis.Redis
) -> None:
    run_state_machine_as_test(
        lambda: UpdatePath(redis_url, store_client),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=True,
            phases=[Phase.generate],  # shrinking against a server takes minutes
        ),
    )  # fmt: skip
