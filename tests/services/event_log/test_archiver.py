"""The archiver on a real server: nothing lost, nothing twice, whatever dies and when."""

import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.events.schema import EventRecord
from services.event_log import archiver as archiver_module
from services.event_log.archiver import Archiver
from services.event_log.entries import decode
from services.event_log.keys import cursor_key, log_key
from tests.feature_repo.crashes import Crash, CrashAfter

USER = "{p003}" + "a" * 26
LOG, CURSOR = log_key(3), cursor_key(3)


def event(name: str) -> EventRecord:
    return EventRecord(id=name, type="view_item", user=USER, time_ms=5, received_ms=5)


def append(client: Any, *names: str, start_ms: int = 1000) -> None:
    """Put events into the log, a stream id each; and apply them."""
    for n, name in enumerate(names):
        fields = {"m": name} if name.startswith("model") else {"e": event(name).encode()}
        client.xadd(LOG, fields, id=f"{start_ms + n}-0")
        client.hset(CURSOR, "cursor", f"{start_ms + n}-0")


def archived(archive: Archive) -> list[str]:
    return [e.id for _, history in archive.histories() for e in history]


def logged(client: Any, after: str = "0-0") -> list[str]:
    return [record.id for _, record in decode(client.xrange(LOG, f"({after}"))]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive" / "events")


def test_only_what_is_applied_is_archived_and_trimmed(
    store_client: redis.Redis, archive: Archive
) -> None:
    archiver = Archiver(store_client, archive)
    assert archiver.run([3]) == 0
    append(store_client, "a", "b", "c")
    store_client.hset(CURSOR, "cursor", "1001-0")
    assert archiver.run([3]) == 2
    assert archiver.run([3]) == 0
    assert archived(archive) == ["a", "b"]
    # The newest archived entry stays: a commit may still have to find it.
    assert logged(store_client) == ["b", "c"]
    assert store_client.hgetall(CURSOR) == {b"cursor": b"1001-0", b"archived": b"1001-0"}


def test_model_switches_and_garbage_pass_without_a_row(
    store_client: redis.Redis, archive: Archive
) -> None:
    append(store_client, "model-1")
    assert Archiver(store_client, archive).run([3]) == 0
    assert store_client.hget(CURSOR, "archived") == b"1000-0"
    assert archive.empty()
    append(store_client, "a", "model-2", "b", start_ms=2000)
    store_client.xadd(LOG, {"e": b"no event"}, id="3000-0")
    store_client.hset(CURSOR, "cursor", "3000-0")
    assert Archiver(store_client, archive).run([3]) == 2
    assert archived(archive) == ["a", "b"]
    assert store_client.hget(CURSOR, "archived") == b"3000-0"


def test_the_log_is_never_trimmed_past_the_cursor(
    store_client: redis.Redis, archive: Archive
) -> None:
    append(store_client, "a", "b", "c")
    store_client.hset(CURSOR, mapping={"cursor": "1000-0", "archiving": "1002-0"})
    before = store_client.hgetall(CURSOR)
    finish = archiver_module._FINISH
    assert finish(store_client, [CURSOR, LOG], ["0-0", "1002-0"]) == 0
    assert finish(store_client, [CURSOR, LOG], ["999-0", "1002-0"]) == 0
    assert finish(store_client, [CURSOR, LOG], ["0-0", "1001-0"]) == 0
    assert (logged(store_client), store_client.hgetall(CURSOR)) == (["a", "b", "c"], before)
    store_client.hset(CURSOR, "cursor", "1002-0")
    assert finish(store_client, [CURSOR, LOG], ["0-0", "1001-0"]) == 0  # not what is claimed
    assert finish(store_client, [CURSOR, LOG], ["0-0", "1002-0"]) == 1
    assert logged(store_client) == ["c"]


@settings(settings.get_profile("one fixture for all"), max_examples=60)
@given(
    cursor=st.tuples(st.integers(0, 2**63), st.integers(0, 2**64 - 1)),
    end=st.tuples(st.integers(0, 2**63), st.integers(0, 2**64 - 1)),
    near=st.booleans(),
)
def test_positions_compare_exactly(
    store_client: redis.Redis, cursor: tuple[int, int], end: tuple[int, int], near: bool
) -> None:
    if near:  # the same millisecond, and numbers that a double cannot tell apart
        cursor, end = (cursor[0], cursor[1]), (cursor[0], max(0, cursor[1] - 1))
    texts = ["{}-{}".format(*one) for one in (cursor, end)]
    store_client.delete(CURSOR)
    store_client.hset(CURSOR, mapping={"cursor": texts[0], "archiving": texts[1]})
    done = archiver_module._FINISH(store_client, [CURSOR, LOG], ["0-0", texts[1]])
    assert bool(done) == (cursor >= end)


def test_a_span_is_claimed_only_where_the_log_still_holds_it(
    store_client: redis.Redis, archive: Archive
) -> None:
    append(store_client, "a", "b", "c")
    claim = archiver_module._CLAIM
    for cursor, start, end in (
        ("1002-0", "999-0", "1002-0"), ("1001-0", "0-0", "1002-0"), ("1009-0", "0-0", "1005-0")
    ):  # fmt: skip
        store_client.hset(CURSOR, "cursor", cursor)
        assert claim(store_client, [CURSOR, LOG], [start, end]) == 0
    assert claim(store_client, [CURSOR, LOG], ["0-0", "1002-0"]) == 1
    assert claim(store_client, [CURSOR, LOG], ["0-0", "1002-0"]) == 1
    assert claim(store_client, [CURSOR, LOG], ["0-0", "1001-0"]) == 0


def test_a_kill_at_any_step_loses_and_doubles_nothing(
    store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "MAX_ENTRIES", 3)
    monkeypatch.setattr("services.event_log.entries._PAGE", 2)
    monkeypatch.setattr("feature_repo.archive.compaction.MANY_PARTS", 1)
    monkeypatch.setattr("feature_repo.archive.compaction.FEWEST", 2)
    names = [f"e{n}" for n in range(8)]
    for at in range(400):
        store_client.flushall()
        archive = Archive(tmp_path / str(at) / "events")
        append(store_client, *names[:5], "model", *names[5:])
        crash = CrashAfter(at)
        with monkeypatch.context() as patch:
            dying = Archiver(crash.over_store(store_client), archive)
            crash.over_files(patch)
            try:
                dying.run([3])
                ended = True
            except Crash:
                ended = False
        # Log and archive hold every event, and what says to be archived is in the archive.
        marker = (store_client.hget(CURSOR, "archived") or b"0-0").decode()
        assert sorted({*archived(archive), *logged(store_client)}) == names
        assert sorted([*archived_until(archive, marker), *logged(store_client, marker)]) == names
        append(store_client, "late", start_ms=9000)
        fresh = Archiver(store_client, Archive(archive.root))
        fresh.run([3])
        fresh.run([3])
        assert archived(archive) == [*names, "late"]
        assert store_client.hget(CURSOR, "archived") == b"9000-0"
        assert logged(store_client) == ["late"]
        if ended:
            assert at > 25
            return
    pytest.fail("never came to an end")


def archived_until(archive: Archive, marker: str) -> list[str]:
    end = LogPosition.parse(marker)
    entries = []
    for part in archive.parts():
        span = Span.of(part)
        assert span
        if span.until <= end:
            entries += ids_of(part)
    return entries


def ids_of(part: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [str(name) for name in pq.read_table(part).column("event_id").to_pylist()]


def test_two_archivers_at_once_archive_everything_once(
    redis_url: str, store_client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "MAX_ENTRIES", 2)
    monkeypatch.setattr("services.event_log.entries._PAGE", 2)
    names = [f"e{n:02}" for n in range(40)]
    append(store_client, *names)
    failures = list[BaseException]()

    def work() -> None:
        client = redis.Redis.from_url(redis_url)
        try:
            own = Archiver(client, Archive(archive.root))
            while (client.hget(CURSOR, "archived") or b"") != b"1039-0":
                own.run([3])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert archived(archive) == names


@pytest.mark.parametrize("pause", ["claimed", "asked"])
def test_an_archiver_that_slept_through_it_all_writes_nothing(
    store_client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch, pause: str
) -> None:
    """It wakes after another one archived its span, went on, and merged the parts."""
    names = [f"e{n}" for n in range(9)]
    append(store_client, *names[:4])

    def others() -> None:
        fresh = Archiver(store_client, Archive(archive.root))
        fresh.run([3])
        append(store_client, *names[4:], start_ms=5000)
        fresh._next_compaction_s = 0
        monkeypatch.setattr("feature_repo.archive.compaction.MANY_PARTS", 1)
        monkeypatch.setattr("feature_repo.archive.compaction.FEWEST", 2)
        fresh.run([3])

    sleeper = Archiver(store_client, archive)
    if pause == "claimed":
        real = archive.extend

        def extend(*given: Any) -> int:
            others()
            return real(*given)

        monkeypatch.setattr(archive, "extend", extend)
    else:
        # While it holds the parts, others add but do not exchange any.
        monkeypatch.setattr("feature_repo.archive.part_set.LOCK_WAIT_S", 0.05)
        write = archiver_module.Archive.extend.__globals__["write_part"]
        calls = []

        def late(*given: Any, **options: Any) -> bool:
            if not calls:
                calls.append(1)
                others()
            return bool(write(*given, **options))

        monkeypatch.setattr("feature_repo.archive.event_archive.write_part", late)
    sleeper.run([3])
    assert archived(archive) == names
    assert store_client.hget(CURSOR, "archived") == b"5004-0"


def test_a_store_that_lost_its_last_writes_archives_the_new_and_doubles_nothing(
    store_client: redis.Redis, archive: Archive
) -> None:
    """Power loss under everysec: the part is there, the store knows neither it nor its end."""
    append(store_client, "a", "b")
    Archiver(store_client, archive).run([3])
    before = store_client.hgetall(CURSOR)
    append(store_client, "c", "d", "lost", start_ms=2000)
    Archiver(store_client, archive).run([3])
    # Back to the moment before, with c and d in the log, and c applied.
    store_client.delete(LOG, CURSOR)
    append(store_client, "b", start_ms=1001)
    append(store_client, "c", "d", start_ms=2000)
    store_client.hset(CURSOR, mapping={**before, b"cursor": b"2000-0"})
    # New events; the clock went back too, so one stands within the span archived before.
    store_client.xadd(LOG, {"e": event("new").encode()}, id="2001-7")
    store_client.xadd(LOG, {"e": event("newer").encode()}, id="2100-0")
    Archiver(store_client, archive).run([3])
    assert archived(archive) == ["a", "b", "c", "d", "lost"]
    store_client.hset(CURSOR, "cursor", "2100-0")
    Archiver(store_client, archive).run([3])
    assert archived(archive) == ["a", "b", "c", "d", "new", "lost", "newer"]
    assert store_client.hget(CURSOR, "archived") == b"2100-0"


def test_a_new_store_beside_an_old_archive_keeps_both(
    store_client: redis.Redis, archive: Archive
) -> None:
    append(store_client, "a", "b", "c")
    Archiver(store_client, archive).run([3])
    store_client.flushall()
    append(store_client, "d", "e", start_ms=5000)
    Archiver(store_client, archive).run([3])
    assert archived(archive) == ["a", "b", "c", "d", "e"]


def test_young_entries_stay_in_the_log(store_client: redis.Redis, archive: Archive) -> None:
    seconds, micros = store_client.time()
    append(store_client, "old", start_ms=1000)
    append(store_client, "young", start_ms=seconds * 1000 + micros // 1000)
    assert Archiver(store_client, archive, settle_ms=3_600_000).run([3]) == 1
    assert archived(archive) == ["old"]
    assert Archiver(store_client, archive).run([3]) == 1


def test_a_busy_log_is_not_archived_in_ever_smaller_parts(
    store_client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store_client, "a")
    real = archive.extend

    def extend(*given: Any) -> int:
        append(store_client, f"more{len(archive.parts())}", start_ms=2000 + len(archive.parts()))
        return real(*given)

    monkeypatch.setattr(archive, "extend", extend)
    assert Archiver(store_client, archive).run([3]) == 1
    assert len(archive.parts()) == 1


def test_a_large_log_goes_in_bounded_parts(
    store_client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.event_log.entries._PAGE", 4)
    monkeypatch.setattr(archiver_module, "MAX_ENTRIES", 8)
    names = [f"e{n:02}" for n in range(30)]
    append(store_client, *names)
    assert Archiver(store_client, archive).run([3]) == 30
    assert len(archive.parts()) == 4
    monkeypatch.setattr(archiver_module, "MAX_BYTES", 1)
    append(store_client, *names, start_ms=5000)
    assert Archiver(store_client, archive).run([3]) == 30
    assert len(archive.parts()) == 4 + 30


def test_parts_that_cannot_be_merged_stop_nothing(
    store_client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archiver_module, "compact", fail)
    append(store_client, "a")
    assert Archiver(store_client, archive).run([3]) == 1
