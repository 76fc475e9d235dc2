"""Idle profiles and anonymous ids leave the store; an event that is on its way wins."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from api_calls import view
from gateway_thread import Api

from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.online.live_row import row_key
from feature_repo.online.previous_states import previous_key
from services.campaigns.keys import decisions_key
from services.client import ApiError, Client
from services.erasure import idle
from services.erasure.idle import IdleBounds, sweep_idle
from services.erasure.sweep import sweep_store
from services.event_log.keys import owners_key, profiling_key

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture
def store(api: Api) -> Iterator[Any]:
    with redis.Redis.from_url(api.url) as client:
        yield client


@pytest.fixture
def named(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home)


def bounds(api: Api, *, users: bool = True, visitors: bool = True) -> IdleBounds:
    """Return bounds for which everything so far is long ago."""
    now_ms = time.time_ns() // 1_000_000 + DAY_MS
    return IdleBounds(
        now_ms, now_ms if users else None, now_ms if visitors else None, api.settings.standing
    )


def sweep(api: Api, store: Any, **which: bool) -> dict[str, int]:
    return dict(sweep_idle(store, api.settings.partitions, bounds(api, **which)).counts)


def applied(client: Client, *events: dict[str, Any]) -> None:
    receipt = client.post_batch([{"id": str(time.time_ns()), **event} for event in events])
    client.wait_applied(receipt["receipt"])


def visit(anonymous: str, **more: Any) -> dict[str, Any]:
    return {**view("", **more), "user_id": None, "anonymous_id": anonymous}


def traces(store: Any, *pseudonyms: str) -> list[bytes]:
    """Return the keys in which somebody stands but for the log and the ids of events."""
    found = list[bytes]()
    for key in store.scan_iter():
        if b"}log" in key or b"}seen" in key:
            continue
        kind = store.type(key)
        whole = (
            key + (store.dump(key) or b"")
            if kind != b"hash"
            else key + b" ".join(part for pair in store.hgetall(key).items() for part in pair)
        )
        if any(one.encode() in whole for one in pseudonyms):
            found.append(key)
    return found


def test_who_was_long_away_is_gone_and_may_begin_anew(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    mine, theirs = f"a-{user}", f"b-{user}"
    applied(client, view(user), visit(mine), visit(theirs))
    applied(client, view(user) | {"anonymous_id": mine})
    everyone = [named.of_user(user), named.of_anonymous(mine), named.of_anonymous(theirs)]
    assert client.profile(user)["version"] == 3
    for one in everyone:
        store.hset(previous_key(one), "learned", b"of the model before")
    before = {one: bool(traces(store, one)) for one in everyone}
    assert all(before.values())
    counted = sweep_idle(store, api.settings.partitions, bounds(api), dry_run=True).counts
    assert all(map(traces, [store] * 3, everyone))
    assert sweep(api, store) == dict(counted)
    assert counted["profiles"] >= 1
    assert counted["anonymous_ids"] >= 2
    assert [traces(store, one) for one in everyone] == [[], [], []]
    for one in (user, mine, theirs):
        with pytest.raises(ApiError, match="404"):
            client.profile(one)
    applied(client, view(user, "B"), visit(mine))
    assert client.profile(user)["version"] == 1  # also of the updater that had kept the row
    assert client.profile(mine)["version"] == 1
    assert sweep(api, store, users=False)["anonymous_ids"] == 1
    assert client.profile(user)["version"] == 1


def test_an_event_that_is_on_its_way_wins(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous = f"a-{user}"
    applied(client, view(user), visit(anonymous))
    api.stop_updater()
    try:
        last = client.post_batch([
            view(user, id=f"1-{user}"), visit(anonymous, id=f"2-{user}")
        ])["receipt"]  # fmt: skip
        assert sweep(api, store)["moved"] >= 2
        assert store.exists(row_key(named.of_user(user)), row_key(named.of_anonymous(anonymous)))
    finally:
        api.start_updater()
    client.wait_applied(last)
    assert client.profile(user)["version"] == 2
    assert client.profile(anonymous)["version"] == 2


def test_an_event_between_reading_and_removing_wins(
    api: Api, client: Client, store: Any, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes in between, and is applied or not, the profile has all of it."""
    anonymous, forget = f"a-{user}", idle._FORGET
    applied(client, view(user), visit(anonymous))
    applied(client, view(user) | {"anonymous_id": anonymous})
    version = client.profile(user)["version"]

    def late(*call: Any) -> Any:
        monkeypatch.setattr(idle, "_FORGET", forget)
        applied(client, visit(anonymous))  # goes to the user's log
        return forget(*call)

    monkeypatch.setattr(idle, "_FORGET", late)
    sweep(api, store, visitors=False)
    assert client.profile(user)["version"] == version + 1
    assert client.profile(anonymous)["version"] == version + 1

    calls = []

    def after_the_user(*call: Any) -> Any:
        calls.append(call)
        if len(call[1]) > 6:  # a linked id, its user is gone
            monkeypatch.setattr(idle, "_FORGET", forget)
            client.wait_applied(client.post_batch([visit(anonymous, id=f"n-{user}")])["receipt"])
        return forget(*call)

    monkeypatch.setattr(idle, "_FORGET", after_the_user)
    sweep(api, store, visitors=False)
    assert client.profile(user)["version"] == 1  # the link held: it is the user's event
    assert client.profile(anonymous)["version"] == 1


def test_a_killed_sweep_leaves_nothing_behind_the_next(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    anonymous, forget = f"a-{user}", idle._FORGET
    applied(client, visit(anonymous))
    applied(client, view(user) | {"anonymous_id": anonymous})

    def killed(client: Any, keys: Any, args: Any) -> Any:
        if len(keys) > 6:
            raise KeyboardInterrupt
        return forget(client, keys, args)

    monkeypatch.setattr(idle, "_FORGET", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(api, store)
    monkeypatch.setattr(idle, "_FORGET", forget)
    assert traces(store, named.of_anonymous(anonymous))
    sweep(api, store)
    assert traces(store, named.of_user(user), named.of_anonymous(anonymous)) == []


def test_links_of_users_whose_rows_are_yet_to_be_rebuilt_stay(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous = f"a-{user}"
    applied(client, visit(anonymous))
    applied(client, view(user) | {"anonymous_id": anonymous})
    mine, ghost = named.of_user(user), named.of_anonymous(anonymous)
    store.delete(row_key(mine))

    def is_linked() -> bool:
        return bool(store.hget(owners_key(partition_of(ghost)), ghost).startswith(mine.encode()))

    sweep(api, store, users=False)  # no user goes, so nothing of theirs does
    assert is_linked()
    sweep_idle(store, api.settings.partitions, bounds(api), list_archived=lambda: [mine])
    assert is_linked()
    sweep(api, store)
    assert traces(store, mine, ghost) == []


def test_who_denied_what_stands_stays(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    applied(client, view(user), visit(f"a-{user}"), visit(f"b-{user}"), view(f"ads-{user}"))
    for one, purpose in ((user, "personalization"), (f"a-{user}", "profiling"),
                         (f"b-{user}", "personalization"), (f"ads-{user}", "ads")):  # fmt: skip
        client.wait_applied(client.put_consents(one, {purpose: False})["receipt"])
    counts = sweep(api, store)
    assert counts["denials"] == 2
    assert client.profile(user)
    denied = named.of_anonymous(f"a-{user}")
    assert store.hget(profiling_key(partition_of(denied)), denied)
    assert traces(store, named.of_anonymous(f"b-{user}"), named.of_user(f"ads-{user}")) == []
    assert not store.hexists(owners_key(partition_of(denied)), named.of_anonymous(f"b-{user}"))


def test_a_sweep_that_is_killed_before_the_tables_is_finished_by_the_next(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    applied(client, visit(f"a-{user}"), view(user))
    gone, stays = named.of_anonymous(f"a-{user}"), named.of_user(user)
    table = api.settings.home / "features" / "x.parquet"
    table.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"entity": [gone, stays]}), table)
    store.hset(decisions_key(gone), "any", "1")
    forget, later_ms = idle.forget_ledger, time.time_ns() // 1_000_000 + 2_000 * DAY_MS

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def run() -> None:
        sweep_store(store, api.settings, 400, later_ms)

    monkeypatch.setattr(idle, "forget_ledger", killed)
    while store.exists(row_key(gone)):  # each time one of them is removed and left by halves
        with pytest.raises(KeyboardInterrupt):
            run()
    assert store.exists(decisions_key(gone))
    monkeypatch.setattr(idle, "forget_ledger", forget)
    run()
    assert traces(store, gone) == []
    assert pq.read_table(table)["entity"].to_pylist() == [stays]
    assert not (api.settings.home / "erasures" / "idle").exists()
