"""Counts beside the commits: what they add up to, and that their writing never fails."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import FencedError, StoreUnavailableError
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.online.connection import connect
from feature_repo.online.live_rows import commit
from services.catalogue import popularity
from services.event_log.keys import log_key
from services.runtime.backoff import Backoff
from services.update.counters import STATS_KEY, Counters

_DAY_MS = 86_400_000
_START_MS = 1_577_836_800_000


def _event(
    kind: str, user: int, *items: str, day: int = 0, event_id: str = "1", partition: int = 0
) -> EventRecord:
    pseudonym = f"{{p{partition:03d}}}{user:026d}"
    return EventRecord(
        id=event_id, type=kind, user=pseudonym, time_ms=_START_MS + day * _DAY_MS, received_ms=0,
        items=[ItemRecord(item) for item in items],
    )  # fmt: skip


def _scores(client: redis.Redis, key: str = popularity.KEY) -> dict[bytes, float]:
    return dict(client.zrange(key, 0, -1, withscores=True))


@pytest.fixture
def counters(redis_url: str, store_client: redis.Redis) -> Iterator[Counters]:
    client = connect(redis_url)
    yield Counters(client, Backoff())
    client.close()


def test_popularity_adds_up_over_items_and_flushes(
    counters: Counters, store_client: redis.Redis
) -> None:
    items = [f"item {n}" for n in range(2_300)]  # more than two calls of each script
    for shoppers in (1, 2):
        counters.note_applied([_event("purchase", shoppers, *items)])
        counters.flush(now=True)
        store_client.script_flush()
    scores = _scores(store_client)
    assert set(scores.values()) == {1.0, 2.0}  # some pairs share a cell
    assert 1.9 * len(items) < sum(scores.values()) < 2 * len(items)
    counters.flush(now=True)
    assert _scores(store_client) == scores


def test_popularity_waits_for_its_time(counters: Counters, store_client: redis.Redis) -> None:
    counters.note_applied([_event("purchase", 1, "A")])
    counters.flush()
    counters.note_applied([_event("purchase", 2, "A")])
    counters.flush()
    assert _scores(store_client) == {b"A": pytest.approx(1.0)}


def test_one_shopper_counts_for_no_more_than_one_buyer(
    counters: Counters, store_client: redis.Redis
) -> None:
    for n in range(300):
        # Other items between them: nothing that is kept of a user is long enough to tell.
        counters.note_applied([_event("view_item", 1, "viewed", event_id=f"v{n}")])
        counters.note_applied(
            [_event("purchase", 2, "bought", *map(str, range(60)), event_id=f"b{n}")]
        )
        if n % 50 == 0:
            counters.flush(now=True)
    for shopper in range(10, 22):
        counters.note_applied([_event("purchase", shopper, "loved", event_id=str(shopper))])
    counters.flush(now=True)
    scores = _scores(store_client)
    assert scores[b"loved"] == pytest.approx(12)
    assert scores[b"viewed"] == pytest.approx(0.05)
    assert scores[b"bought"] == pytest.approx(1)
    # Who comes back every day counts as of today, once.
    for day in range(1, 29):
        counters.note_applied([_event("purchase", 2, "bought", day=day)])
        counters.flush(now=True)
    assert _scores(store_client)[b"bought"] == pytest.approx(2)  # one, four weeks later
    assert _scores(store_client, popularity.TREND_KEY)[b"bought"] == pytest.approx(2**4)


_TOUCHES = st.lists(
    st.tuples(
        st.sampled_from([*popularity.POPULARITY_LEVELS, "refund"]), st.integers(0, 3),
        st.lists(st.sampled_from("ABC"), min_size=1, max_size=3), st.integers(-30, 60),
        st.integers(0, 1), st.booleans(),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@given(touches=_TOUCHES)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_counting_live_gives_what_the_archive_gives(
    redis_url: str, store_client: redis.Redis, tmp_path_factory: pytest.TempPathFactory,
    touches: list[tuple[str, int, list[str], int, int, bool]],
) -> None:  # fmt: skip
    events = [
        _event(kind, user, *items, day=day, event_id=str(n), partition=partition)
        for n, (kind, user, items, day, partition, _) in enumerate(touches)
    ]
    pairs = {(e.user, item.item_id) for e in events for item in e.items}
    assume(len({(user[:6], popularity.cell(user, item)) for user, item in pairs}) == len(pairs))
    store_client.flushall()
    client = connect(redis_url)
    counters = Counters(client, Backoff())
    for event, (*_, flushed) in zip(events, touches, strict=True):
        counters.note_applied([event])
        if flushed:
            counters.flush(now=True)
    counters.flush(now=True)
    archive = Archive(tmp_path_factory.mktemp("home") / "events")
    archive.append("part", [(LogPosition(n + 1, 0), event) for n, event in enumerate(events)])
    counted = popularity.from_archive(archive)
    for key in popularity.SETS:
        live = {item.decode(): score for item, score in _scores(store_client, key).items()}
        assert live == pytest.approx(counted.scores[key], rel=1e-9)
        shoppers = {item: sum(name == item for _, name in pairs) for item in live}
        newest_ms = max(event.time_ms for event in events)
        if key == popularity.KEY:  # nobody counts for more than one buyer
            faded = popularity.fading(newest_ms)
            assert all(score * faded <= shoppers[item] + 1e-9 for item, score in live.items())
    for partition, cells in counted.cells.items():
        kept = store_client.get(popularity.cells_key(partition))
        assert kept == cells[: len(kept)]
        assert not any(cells[len(kept) :])
    # Filled from the archive, the sets and cells go on from there.
    store_client.flushall()
    popularity.seed(client, archive)
    counters.note_applied(events)
    counters.flush(now=True)
    live = {item.decode(): score for item, score in _scores(store_client).items()}
    assert live == pytest.approx(counted.scores[popularity.KEY], rel=1e-9)
    client.close()


def test_a_shop_of_more_pairs_than_cells_counts_the_same_sample(
    counters: Counters, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popularity, "CELLS", 8)
    kinds = [*popularity.POPULARITY_LEVELS]
    events = [
        _event(kinds[n * 7 % 4], n % 11, "ABCDE"[n * 3 % 5], day=n // 2, event_id=str(n))
        for n in range(0, 200, 2)
    ]
    counters.note_applied(events[:50])
    counters.flush(now=True)
    for event in events[50:]:
        counters.note_applied([event])
        counters.flush(now=True)
    archive = Archive(tmp_path / "events")
    archive.append("part", [(LogPosition(n + 1, 0), event) for n, event in enumerate(events)])
    counted = popularity.from_archive(archive)
    live = {item.decode(): score for item, score in _scores(store_client).items()}
    assert live == pytest.approx(counted.scores[popularity.KEY], rel=1e-9)


def test_a_record_of_a_time_that_cannot_be_brings_no_item_to_the_top(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "events")
    events = [_event("purchase", 1, "A", day=1_000_000), _event("purchase", 1, "B", event_id="2")]
    archive.append("part", [(LogPosition(n + 1, 0), event) for n, event in enumerate(events)])
    for scores in popularity.from_archive(archive).scores.values():
        assert set(scores) == {"B"}


def test_sets_hold_no_more_than_their_most(
    counters: Counters, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popularity, "MAX_ITEMS", 2)
    for item, buyers in (("A", 1), ("B", 3), ("C", 2)):
        counters.note_applied(
            [_event("purchase", n, item, event_id=f"{item}{n}") for n in range(buyers)]
        )
    counters.flush(now=True)
    assert _scores(store_client) == {b"B": pytest.approx(3), b"C": pytest.approx(2)}


def test_filling_the_sets_takes_away_those_that_counted_events(
    store_client: redis.Redis, tmp_path: Path
) -> None:
    for key in popularity.EVENT_KEYS:
        store_client.zadd(key, {"A": 1000})
    archive = Archive(tmp_path / "events")
    archive.append("part", [(LogPosition(1, 0), _event("purchase", 1, "B"))])
    assert popularity.seed(store_client, archive) == 1
    assert not store_client.exists(*popularity.EVENT_KEYS)
    assert _scores(store_client) == {b"B": pytest.approx(1)}


def test_a_key_of_another_type_is_no_error(counters: Counters, store_client: redis.Redis) -> None:
    store_client.set(popularity.KEY, "no set")
    store_client.sadd(popularity.cells_key(1), "no string")
    counters.note_applied([_event("purchase", 1, "A"), _event("purchase", 1, "A", partition=1)])
    counters.flush(now=True)


def test_a_commit_takes_the_counts_along_whatever_becomes_of_it(
    redis_url: str, store_client: redis.Redis
) -> None:
    end = store_client.xadd(log_key(0), {"e": b""}).decode()
    store_client.hset("{p000}lease", "epoch", 1)
    client = connect(redis_url)
    counters = Counters(client, Backoff())

    def commit_at(epoch: int) -> None:
        counters.note(events=3, late=0)
        commit(
            client, 0, epoch=epoch, expected_cursor="0-0", new_cursor=end, rows={},
            ahead=counters.ahead(),
        )  # fmt: skip
        counters.note_written()

    store_client.script_flush()
    commit_at(1)
    assert store_client.hgetall(STATS_KEY) == {b"events": b"3"}
    assert store_client.hget("{p000}cursor", "cursor") == end.encode()
    with pytest.raises(FencedError):
        commit_at(2)
    counters.note_written()
    counters.note(events=-3)
    counters.write()
    assert store_client.hgetall(STATS_KEY) == {b"events": b"3"}
    client.close()


def test_counts_of_a_commit_without_an_answer_are_kept() -> None:
    client = connect("redis://127.0.0.1:1/0")
    counters = Counters(client, Backoff())
    counters.note(events=3)
    with pytest.raises(StoreUnavailableError):
        commit(
            client, 0, epoch=1, expected_cursor="0-0", new_cursor="1-0", rows={},
            ahead=counters.ahead(),
        )  # fmt: skip
    counters.write()
    assert counters.ahead() == [("HINCRBY", STATS_KEY, "events", 3)]
    counters.note(events=-3)
    assert counters.ahead() == []


def test_a_settled_process_collects_only_what_came_later() -> None:
    code = (
        "import gc; from services.runtime import freeze_heap; before = len(gc.get_objects()); "
        "freeze_heap.freeze_heap(); "
        "assert gc.get_freeze_count() > before / 2, before; "
        "assert len(gc.get_objects()) < before / 10; assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_who_denies_analytics_makes_nothing_popular(
    store_client: redis.Redis, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "events")
    events = [_event("purchase", n, "AB"[n % 2], event_id=str(n)) for n in range(6)]
    archive.append("part", [(LogPosition(n + 1, 0), event) for n, event in enumerate(events)])
    denying = {event.user for event in events if event.items[0].item_id == "B"}
    assert popularity.seed(store_client, archive, denying) == 1
    assert _scores(store_client) == {b"A": pytest.approx(3.0)}
