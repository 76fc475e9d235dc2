"""A user's events, newest first: each once, whatever lies where, and without reading it all."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.events.schema import EventRecord
from feature_repo.online.connection import connect_async
from services.event_log.keys import cursor_key, log_key
from services.history import recent_events as event_history
from services.history.recent_events import Position, read_events

USER, OTHER = ("{p003}" + letter * 26 for letter in "ab")


def event(name: str, user: str = USER, type_: str = "view_item") -> EventRecord:
    return EventRecord(id=name, type=type_, user=user, time_ms=5, received_ms=5)


def fill(client: redis.Redis, home: Path, spans: int = 6) -> list[str]:
    """Put history, parts and a tail in place; return the ids of the user, newest first."""
    archive = Archive(home / "archive" / "events")
    archive.append("import-shop", [(LogPosition.imported(n), event(f"old{n}")) for n in (1, 2, 3)])
    archive.append("p004-0-0-9-0", [(LogPosition(9, 0), event("stranger", "{p004}" + "c" * 26))])
    at, names = LogPosition(0, 0), ["old1", "old2", "old3"]
    for span in range(1, spans + 1):
        positions = [LogPosition(10 * span, n) for n in range(3)]
        entries = [(p, event(f"e{span}-{n}")) for n, p in enumerate(positions[:2])]
        archive.extend(Span(3, at, positions[2]), [*entries, (positions[2], event("x", OTHER))])
        names += [record.id for _, record in entries]
        at = positions[2]
    client.hset(cursor_key(3), mapping={"cursor": "1001-0", "archived": f"{10 * (spans - 1)}-2"})
    # The last part is written but not yet said to be: its entries are in the log as well.
    for n in range(2):
        client.xadd(log_key(3), {"e": event(f"e{spans}-{n}").encode()}, id=f"{10 * spans}-{n}")
    client.xadd(log_key(3), {"m": "model"}, id="1000-0")
    client.xadd(log_key(3), {"e": event("tail", type_="search").encode()}, id="1000-1")
    client.xadd(log_key(3), {"e": event("y", OTHER).encode()}, id="1001-0")
    return [*names, "tail"][::-1]


def read(
    url: str, home: Path, *, before: Position | None = None, type_: str | None = None,
    limit: int = 100, user: str = USER,
) -> list[tuple[Position, EventRecord]]:  # fmt: skip
    async def run() -> Any:
        client = connect_async(url)
        try:
            state: Any = SimpleNamespace(store=client, settings=SimpleNamespace(home=home))
            return await read_events(state, user, before, type_, limit)
        finally:
            await client.aclose()

    found: list[tuple[Position, EventRecord]] = asyncio.run(run())
    return found


@settings(settings.get_profile("one fixture for all"), max_examples=8)
@given(limit=st.integers(1, 20), group=st.integers(1, 7))
def test_pages_follow_each_other_through_log_and_archive(
    redis_url: str,
    store_client: redis.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    limit: int,
    group: int,
) -> None:
    store_client.flushall()
    home = tmp_path_factory.mktemp("home")
    expected = fill(store_client, home, spans=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_history, "PARTS_A_READ", group)
        found, before = list[str](), None
        while page := read(redis_url, home, before=before, limit=limit):
            found += [record.id for _, record in page]
            before = page[-1][0]
    assert found == expected


def test_only_one_type(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> None:
    fill(store_client, tmp_path)
    assert [r.id for _, r in read(redis_url, tmp_path, type_="search")] == ["tail"]
    assert [r.id for _, r in read(redis_url, tmp_path, type_="view_item", limit=1)] == ["e6-1"]
    assert read(redis_url, tmp_path, type_="purchase") == []
    assert [r.id for _, r in read(redis_url, tmp_path, user=OTHER, limit=2)] == ["y", "x"]


def test_the_newest_events_are_found_without_the_oldest_parts(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(store_client, tmp_path, spans=40)
    reads = list[list[str]]()
    real = event_history._rows

    def rows(parts: Any, *given: Any) -> Any:
        reads.append([part.name for part in parts])
        return real(parts, *given)

    monkeypatch.setattr(event_history, "_rows", rows)
    assert [r.id for _, r in read(redis_url, tmp_path, limit=5)] == expected[:5]
    assert [len(names) for names in reads] == [16]
    assert not any("p004" in name for names in reads for name in names)
    reads.clear()
    assert len(read(redis_url, tmp_path, before=(70, 0, ""), limit=5)) == 5
    assert [len(names) for names in reads] == [7]


def test_a_part_that_reaches_far_back_hides_nothing(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a store was lost, a part's name may say more than what is in it."""
    monkeypatch.setattr(event_history, "PARTS_A_READ", 1)
    expected = fill(store_client, tmp_path)
    archive = Archive(tmp_path / "archive" / "events")
    wide = Span(3, LogPosition(0, 0), LogPosition(500, 0))
    archive.extend(wide, [(LogPosition(1, 0), event("first")), (LogPosition(500, 0), event("z"))])
    whole = ["tail", "z", *expected[1:-3], "first", "old3", "old2", "old1"]
    for limit in range(1, len(whole) + 1):
        assert [r.id for _, r in read(redis_url, tmp_path, limit=limit)] == whole[:limit]
