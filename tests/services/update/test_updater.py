"""The updater's step, on a real server and without threads."""

import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from event_log import PSEUDONYMS, Sum, append, drain, event, loop, users_of

from feature_repo.online.live_row import FIELDS, LiveState, row_key
from feature_repo.online.live_rows import commit, load_live, read_batch, read_live, replace_live
from feature_repo.user_profile import explicit
from services.event_log.batch import USER_EVENTS
from services.event_log.keys import cursor_key, log_key
from services.update import kept_rows
from services.update import updater as updater_module
from services.update.counters import STATS_KEY
from services.update.kept_rows import KeptRows
from services.update.lease import Leases


def row_of(client: redis.Redis, user: str) -> LiveState:
    [row] = read_live(client, [PSEUDONYMS.of_user(user)])
    assert row is not None
    return row


def test_one_round_applies_commits_and_dead_letters(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater = loop(redis_url, tmp_path, Sum())
    placed = append(redis_url, [event("a", "1"), event("a", "poison"), event("a", "2")])
    partition = placed[0].partition
    store_client.xadd(log_key(partition), {"e": b"no event"})
    store_client.xadd(log_key(partition), {"x": b"neither"})
    stranger = next(u for u in users_of((partition + 1) % 4))
    store_client.xadd(log_key(partition), {"e": event(stranger, "s").encode()})
    drain(updater)
    row = row_of(store_client, "a")
    assert (row.version, row.learned, row.model) == (2, b"1;2;", "sum-1")
    assert store_client.xlen(b"{p%03d}dead" % partition) == 4
    newest = store_client.xrevrange(log_key(partition), count=1)[0][0]
    assert store_client.hget(cursor_key(partition), "cursor") == newest
    drain(updater)
    assert read_live(store_client, [PSEUDONYMS.of_user("a")]) == [row]
    stats = {name: int(n) for name, n in store_client.hgetall(STATS_KEY).items()}
    assert stats == {b"events": 2, b"dead": 4}


@pytest.mark.parametrize("broken", range(len(FIELDS)))
@pytest.mark.parametrize("known", [True, False])
def test_a_row_of_garbage_is_folded_anew_or_stops_its_user_alone(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, broken: int, *, known: bool
) -> None:
    updater = loop(redis_url, tmp_path, Sum())
    one, other = (user for user, _ in zip(users_of(1), range(2), strict=False))
    append(redis_url, [event(one, "1"), event(one, "2"), event(other, "a")])
    drain(updater)
    store_client.hset(row_key(PSEUDONYMS.of_user(one)), FIELDS[broken], b"\xff garbage")
    updater._kept.drop(1)  # who has written the row goes on from what it wrote
    if not known:
        store_client.xtrim(log_key(1), maxlen=0)
    append(redis_url, [event(one, "3"), event(other, "b")])
    drain(updater)
    assert row_of(store_client, other).learned == b"a;b;"
    if known:
        row = row_of(store_client, one)
        assert (row.version, row.learned, row.model) == (3, b"1;2;3;", "sum-1")
        assert store_client.xlen(b"{p001}dead") == 0
    else:
        [(_, letter)] = store_client.xrange(b"{p001}dead")
        assert b"unreadable row" in b"".join(letter.values())


def test_what_ends_an_updater_is_logged(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater = loop(redis_url, tmp_path)

    def fail() -> None:
        updater.stop()
        raise ArithmeticError

    monkeypatch.setattr(updater, "_round", fail)
    # A logger that has written before keeps what it was configured with then.
    monkeypatch.setattr("services.update.updater._log", structlog.get_logger())
    with structlog.testing.capture_logs() as lines, pytest.raises(ArithmeticError):
        updater.run()
    assert [(line["event"], line["exc_info"]) for line in lines] == [("updater_ended", True)]
    updater._archiving.join()
    updater._joining.join()


def test_an_owner_that_lost_its_lease_commits_nothing(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater = loop(redis_url, tmp_path)
    updater._share()
    [placed] = append(redis_url, [event("a", "1")])
    other = Leases(store_client, "other")
    assert not other.take(placed.partition)
    assert other.take(placed.partition, force=True)
    updater._round()
    assert read_live(store_client, [PSEUDONYMS.of_user("a")]) == [None]
    assert store_client.hget(STATS_KEY, "events") == b"0"
    other.release(placed.partition)
    drain(updater)
    assert row_of(store_client, "a").version == 1


def test_late_events_are_applied_in_log_order_and_counted(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater = loop(redis_url, tmp_path, Sum())
    day = 1_700_000_000_000
    append(redis_url, [event("a", "1", day), event("a", "2", day - 1), event("b", "3", day - 9)])
    drain(updater)
    # Late by the row, late by the batch, on time, and late after it.
    times = [day - 5, day - 6, day + 7, day + 6]
    append(redis_url, [event("a", f"x{n}", time) for n, time in enumerate(times)])
    drain(updater)
    assert row_of(store_client, "a").learned == b"1;2;x0;x1;x2;x3;"
    assert row_of(store_client, "a").time_ms == day + 7
    assert store_client.hget(STATS_KEY, "late") == b"4"


def test_a_model_switch_holds_from_its_entry_on(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    partition = 2
    before, after, old = (next_ for next_, _ in zip(users_of(partition), range(3), strict=False))
    updater = loop(redis_url, tmp_path, Sum("one"))
    updater._transition._load = Sum
    append(redis_url, [event(old, "0"), event(before, "1")])
    store_client.xadd(log_key(partition), {"m": b"two"})
    append(redis_url, [event(after, "2"), event(old, "3")])
    elsewhere = next(users_of(1))
    append(redis_url, [event(elsewhere, "4")])
    drain(updater)
    assert store_client.hget(cursor_key(partition), "model") == b"two"
    assert read_live(store_client, [PSEUDONYMS.of_user(after)]) == [None]  # the batch ends with it
    drain(updater)
    rows = {user: row_of(store_client, user) for user in (old, before, after, elsewhere)}
    assert {user: row.model for user, row in rows.items()} == {
        old: "one", before: "one", after: "two", elsewhere: "one",
    }  # fmt: skip
    # Whoever takes the lease later follows it too.
    late = next(u for n, u in enumerate(users_of(partition)) if n == 5)
    append(redis_url, [event(late, "5")])
    updater._leases.leave()
    other = loop(redis_url, tmp_path, Sum("one"))
    other._transition._load = Sum
    drain(other)
    assert row_of(store_client, late).model == "two"


def test_rows_that_a_rebuild_replaced_are_read_again(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater = loop(redis_url, tmp_path, Sum())
    append(redis_url, [event("a", "1")])
    drain(updater)
    [placed] = append(redis_url, [event("a", "2")])
    row, user = row_of(store_client, "a"), PSEUDONYMS.of_user("a")
    rebuilt = LiveState(row.profile, b"new;", 1, "sum-1", row.time_ms)
    calls = list[Any]()

    def commit_after_a_rebuild(*args: Any, **kwargs: Any) -> bool:
        if not calls:
            assert replace_live(store_client, placed.partition, {user: rebuilt}, {user: 1}) == set()
        calls.append(kwargs)
        return commit(*args, **kwargs)

    monkeypatch.setattr(updater_module, "commit", commit_after_a_rebuild)
    epoch = updater._leases.epochs[placed.partition]
    drain(updater)
    assert row_of(store_client, "a") == rebuilt
    drain(updater)
    assert row_of(store_client, "a").learned == b"new;2;"
    assert updater._leases.epochs[placed.partition] == epoch
    # A row that is kept, of the same version and with another learned state.
    again = replace(row_of(store_client, "a"), learned=b"again;")
    assert user in updater._kept
    assert replace_live(store_client, placed.partition, {user: again}, {user: 2}) == set()
    append(redis_url, [event("a", "3")])
    drain(updater)
    assert row_of(store_client, "a").learned == b"again;3;"
    assert len(calls) == 3


def test_kept_rows_are_read_once_and_again_when_they_are_not_the_stores(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, read = loop(redis_url, tmp_path, Sum()), list[str]()

    def noted(client: Any, users: dict[int, list[str]]) -> Any:
        read.extend(user for some in users.values() for user in some)
        return read_batch(client, users)

    monkeypatch.setattr(kept_rows, "read_batch", noted)
    user = PSEUDONYMS.of_user("a")
    [placed] = append(redis_url, [event("a", "1")])
    drain(updater)
    append(redis_url, [event("a", "2")])
    drain(updater)
    assert read == [user]
    other = row_of(store_client, "a")
    load_live(store_client, {user: LiveState(other.profile, b"other;", 7, "sum-1", 0)})
    append(redis_url, [event("a", "3")])
    drain(updater)  # refused: the store has another version
    assert row_of(store_client, "a").learned == b"other;"
    drain(updater)
    assert row_of(store_client, "a").learned == b"other;3;"
    assert read == [user, user]
    updater._leases.release(placed.partition)
    drain(updater)  # it has its lease again, and meanwhile another may have had it
    assert len(updater._kept) == 0


def test_a_row_is_kept_only_by_who_wrote_it(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, user = loop(redis_url, tmp_path, Sum()), PSEUDONYMS.of_user("a")

    def commit_again(*args: Any, **kwargs: Any) -> bool:
        commit(*args, **kwargs)
        return commit(*args, **kwargs)

    monkeypatch.setattr(updater_module, "commit", commit_again)
    append(redis_url, [event("a", "1")])
    drain(updater)
    assert row_of(store_client, "a").learned == b"1;"
    assert user not in updater._kept
    monkeypatch.undo()
    append(redis_url, [event("a", "2")])
    drain(updater)
    assert user in updater._kept


def test_kept_rows_are_bounded_by_the_memory_they_take(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    updater, users = loop(redis_url, tmp_path, Sum()), list(islice(users_of(1), 40))
    append(redis_url, [event(user, user) for user in users])
    drain(updater)
    kept = updater._kept
    assert [user in kept for user in map(PSEUDONYMS.of_user, users)] == [True] * 40
    size = updater._kept._kept[PSEUDONYMS.of_user(users[-1])].size
    updater._kept = bounded = KeptRows(store_client, 5 * size)
    for user, each in kept._kept.items():
        bounded.put(user, each)
    assert [user in bounded for user in map(PSEUDONYMS.of_user, users[-6:])] == [False] + [True] * 5
    tracemalloc.start()
    copies = [explicit.decode(explicit.encode(each.profile)) for each in kept._kept.values()]
    assert tracemalloc.get_traced_memory()[0] <= size * len(copies)
    tracemalloc.stop()


def test_a_busy_user_holds_up_nobody_else(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    learned = Sum()
    updater = loop(redis_url, tmp_path, learned)
    busy, beside = (user for user, _ in zip(users_of(1), range(2), strict=False))
    append(redis_url, [event(busy, str(n)) for n in range(1000)])
    append(redis_url, [event(beside, "beside")])
    append(redis_url, [event(user, f"{user}-x") for p in (0, 2, 3) for user in [next(users_of(p))]])
    drain(updater)
    for partition in (0, 2, 3):
        assert row_of(store_client, next(users_of(partition))).version == 1
    rounds = 1
    while read_live(store_client, [PSEUDONYMS.of_user(beside)]) == [None]:
        drain(updater)
        rounds += 1
    assert row_of(store_client, busy).learned == b"".join(b"%d;" % n for n in range(1000))
    assert rounds <= 1000 // USER_EVENTS + 3
    assert max(learned.sizes) == USER_EVENTS


def test_an_updater_believes_the_store_that_lost_its_last_commit(
    redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    """After a failover the cursor may stand before commits that were acknowledged."""
    updater = loop(redis_url, tmp_path, Sum())
    [placed] = append(redis_url, [event("a", "1")])
    keys = [key for key in store_client.scan_iter() if b"log" not in key and b"seen" not in key]
    before = {key: store_client.dump(key) for key in keys}
    drain(updater)
    assert row_of(store_client, "a").version == 1
    for key in store_client.scan_iter():
        if b"log" not in key and b"seen" not in key and b"lease" not in key:
            store_client.delete(key)
    for key, body in before.items():
        store_client.restore(key, 0, body, replace=True)
    drain(updater)
    assert row_of(store_client, "a").learned == b"1;"
    assert store_client.hget(cursor_key(placed.partition), "cursor") is not None
