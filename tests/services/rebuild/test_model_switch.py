"""Another model: partitions are told once, old and new rows follow."""

from collections.abc import Callable
from typing import Any

import redis
from event_log import PSEUDONYMS, append, event
from rebuilt_shop import PARTITIONS, Newer, apply, assert_rows_are_the_fold, shop

from feature_repo.online.live_rows import read_live
from services.event_log.keys import cursor_key, log_key
from services.event_log.model_switch import find_model, switch_model
from services.rebuild.run import rebuild
from services.settings import Settings


def test_a_partition_is_told_once_to_follow_another_model(store_client: redis.Redis) -> None:
    assert switch_model(store_client, range(3), "") == []
    assert switch_model(store_client, range(3), "m1") == [0, 1, 2]
    assert switch_model(store_client, range(4), "m1") == [3]
    store_client.hset(cursor_key(1), mapping={"cursor": "9999999999999-0", "model": "m2"})
    assert [find_model(store_client, p) for p in range(5)] == ["m1", "m2", "m1", "m1", ""]
    for n in range(2500):
        store_client.xadd(log_key(0), {"e": str(n)})
    assert find_model(store_client, 0) == "m1"
    assert switch_model(store_client, [0, 1], "") == [0, 1]
    assert switch_model(store_client, [0, 1], "") == [1]  # cursor beyond the log: it says m2


def test_another_model_is_followed_by_old_rows_and_new_ones(
    settings: Settings, store_client: redis.Redis, serve: Callable[[Any], None]
) -> None:
    assert settings.redis_url
    users = shop(settings, store_client)
    serve(Newer())
    assert rebuild(settings) == len(users)
    assert [find_model(store_client, p) for p in range(PARTITIONS)] == ["sum-2"] * PARTITIONS
    append(settings.redis_url, [event(name, "after") for name in ("u0", "u1", "fresh")])
    apply(store_client, settings)
    rows = read_live(store_client, [*users, PSEUDONYMS.of_user("fresh")])
    assert {row.model for row in rows if row} == {"sum-2"}
    assert assert_rows_are_the_fold(store_client, settings, Newer()) == 13
    assert store_client.hget(cursor_key(int(users[0][2:5])), "model") == b"sum-2"
    logs = [store_client.xlen(log_key(p)) for p in range(PARTITIONS)]
    rebuild(settings)
    assert [store_client.xlen(log_key(p)) for p in range(PARTITIONS)] == logs
