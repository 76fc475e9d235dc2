"""Dead letters: listed, applied again exactly once, or dropped, whatever dies in between."""

from pathlib import Path
from typing import Any

import pytest
import redis
from event_log import PARTITIONS, PSEUDONYMS, Sum, append, drain, event, loop, users_of

from feature_repo.errors import InvalidInputError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_rows import read_live
from services.event_log import dead_letters
from services.event_log.keys import erased_key, log_key
from services.event_log.receipt import stream_id

ALL = range(PARTITIONS)


@pytest.fixture
def dead(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> list[Any]:
    """Two poison events and one that does not decode, each passed by an updater."""
    append(redis_url, [event("a", "1"), event("a", "poison-a"), event("b", "poison-b")])
    store_client.xadd(log_key(0), {"e": b"no event"})
    updater = loop(redis_url, tmp_path / "first", Sum())
    drain(updater)
    updater._leases.leave()
    return dead_letters.letters(store_client, ALL)


def cured(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what was poison is applied."""
    apply = Sum.replay

    def replay(self: Sum, histories: Any, states: Any) -> list[bytes]:
        renamed = [[event("x", e.id.replace("poison", "well")) for e in h] for h in histories]
        return apply(self, renamed, states)

    monkeypatch.setattr(Sum, "replay", replay)


def learned(client: redis.Redis, user: str) -> bytes | None:
    [row] = read_live(client, [PSEUDONYMS.of_user(user)])
    return None if row is None else row.learned


def test_letters_say_what_died_where_and_why(dead: list[Any], store_client: redis.Redis) -> None:
    by_id = {letter.event.id if letter.event else None: letter for letter in dead}
    assert set(by_id) == {"poison-a", "poison-b", None}
    letter = by_id["poison-a"]
    assert letter.partition == partition_of(PSEUDONYMS.of_user("a"))
    assert letter.id.startswith(f"p{letter.partition:03d}-")
    assert store_client.xrange(log_key(letter.partition), letter.entry, letter.entry)
    assert letter.reason == "the model cannot apply it"
    assert (by_id[None].reason, by_id[None].record) == ("does not decode", b"no event")
    assert len(dead_letters.letters(store_client, ALL, limit=2)) == 2


def test_a_retried_letter_is_applied_once(
    dead: list[Any], redis_url: str, store_client: redis.Redis, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cured(monkeypatch)
    answers = dead_letters.retry(store_client, ALL)
    assert sorted(answers.values()) == ["retried", "retried", "unfit"]
    again = dead_letters.retry(store_client, ALL, [letter.id for letter in dead])
    assert sorted(again.values()) == ["gone", "gone", "unfit"]
    [resent] = append(redis_url, [event("a", "poison-a")])  # its client never knew
    assert resent.duplicate
    drain(loop(redis_url, tmp_path, Sum()))
    assert (learned(store_client, "a"), learned(store_client, "b")) == (b"1;well-a;", b"well-b;")
    # The receipt that the client has now is of the entry that was applied.
    ms, seq = resent.position
    [(_, fields)] = store_client.xrange(log_key(resent.partition), f"{ms}-{seq}", f"{ms}-{seq}")
    assert fields[b"e"] == event("a", "poison-a").encode()


def test_a_retry_that_is_killed_midway_is_repeated_without_a_double(
    dead: list[Any], redis_url: str, store_client: redis.Redis, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cured(monkeypatch)
    script, calls = dead_letters._RETRY, list[Any]()

    def dying(client: Any, keys: Any, args: Any) -> Any:
        answer = script(client, keys, args)
        calls.append(answer)
        if len(calls) == 1:  # the step is done, its answer never arrives
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(dead_letters, "_RETRY", dying)
    with pytest.raises(KeyboardInterrupt):
        dead_letters.retry(store_client, ALL)
    dead_letters.retry(store_client, ALL)
    drain(loop(redis_url, tmp_path, Sum()))
    assert (learned(store_client, "a"), learned(store_client, "b")) == (b"1;well-a;", b"well-b;")
    assert calls == [b"retried", b"retried"]


def test_history_leaves_out_what_the_rows_never_saw(
    dead: list[Any], store_client: redis.Redis
) -> None:
    before = {p: dead_letters.read_voided(store_client, p) for p in ALL}
    assert set().union(*before.values()) == {stream_id(letter.entry) for letter in dead}
    a, b = (
        next(x for x in dead if x.event and x.event.id == name) for name in ("poison-a", "poison-b")
    )
    dead_letters.retry(store_client, ALL, [a.id])
    assert dead_letters.drop(store_client, ALL, [b.id, a.id]) == {b.id: "dropped", a.id: "gone"}
    assert {p: dead_letters.read_voided(store_client, p) for p in ALL} == before
    [left] = dead_letters.letters(store_client, ALL)
    assert left.event is None
    assert dead_letters.drop(store_client, ALL) == {left.id: "dropped"}
    assert dead_letters.letters(store_client, ALL) == []


def test_an_erased_users_letter_is_not_brought_back(
    dead: list[Any], redis_url: str, store_client: redis.Redis, tmp_path: Path
) -> None:
    user = PSEUDONYMS.of_user("a")
    store_client.sadd(erased_key(partition_of(user)), user)
    ghost = PSEUDONYMS.of_anonymous("ghost")
    other = next(users_of((partition_of(ghost) + 1) % PARTITIONS))
    append(redis_url, [event(other, "poison-ghost", linked=ghost)])
    drain(loop(redis_url, tmp_path, Sum()))
    store_client.sadd(erased_key(partition_of(ghost)), ghost)
    lengths = [store_client.xlen(log_key(p)) for p in ALL]
    names = {x.event.id: x.id for x in dead_letters.letters(store_client, ALL) if x.event}
    answers = dead_letters.retry(store_client, ALL, [names["poison-a"], names["poison-ghost"]])
    assert list(answers.values()) == ["erased", "erased"]
    assert [store_client.xlen(log_key(p)) for p in ALL] == lengths
    assert names.keys() - {"poison-b"} == {"poison-a", "poison-ghost"}
    left = [x.event.id for x in dead_letters.letters(store_client, ALL) if x.event]
    assert left == ["poison-b"]


@pytest.mark.parametrize("name", ["", "p1", "x001-1-0", "p001-1", "p001-1-x", "1-0"])
def test_what_is_no_letters_name_is_refused(name: str, store_client: redis.Redis) -> None:
    with pytest.raises(InvalidInputError, match="no dead letter"):
        dead_letters.retry(store_client, ALL, [name])
