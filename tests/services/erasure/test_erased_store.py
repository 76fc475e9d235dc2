"""The store's removals, one by one: what is somebody else's stays."""

import os
from pathlib import Path

import redis

from feature_repo.online.live_row import row_key
from services.erasure import ledger
from services.erasure.graves import bury, restore_graves
from services.erasure.seen_digests import SeenDigests, drop_old
from services.erasure.store import remove_seen_ids
from services.event_log.keys import seen_keys, today


def test_ids_of_others_events_stay_known(store_client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "erasures" / "requests").mkdir(parents=True)
    key = seen_keys(3, today())[0]
    theirs = ["s\x1f1", "s\x1fb1f4f4a3", "s\x1forder-1", "s\x1fshopper-70", "s\x1fmyshopper-7"]
    own = ["s\x1fshopper-7:1", "s\x1fx_shopper-7_y", "~\x1fs\x1fshopper-7"]
    store_client.hset(key, mapping=dict.fromkeys([*theirs, *own], "1-0"))
    removal = remove_seen_ids(
        store_client, {3}, {"1", "shopper-7"}, SeenDigests(tmp_path, ["er-1"]), 0
    )
    assert (removal.found, removal.removed) == (3, 3)
    assert sorted(name.decode() for name in store_client.hkeys(key)) == sorted(theirs)
    assert removal.waits_until_ms


def test_rows_of_a_request_that_has_just_begun_are_left_to_whoever_counts_them(
    store_client: redis.Redis, tmp_path: Path
) -> None:
    user = "{p003}" + "a" * 26
    store_client.hset(row_key(user), "x", "y")
    begun = ledger.create(tmp_path, [user], ["somebody"], suppress=True)
    restore_graves(store_client, tmp_path)  # a worker that looks, or another gateway that starts
    assert bury(store_client, begun.users) == 1
    store_client.hset(row_key(user), "x", "y")  # a store of before
    begun.stage = "done"
    ledger.write(tmp_path, begun)
    restore_graves(store_client, tmp_path)
    assert not store_client.exists(row_key(user))


def test_what_was_removed_once_is_known_without_the_ids(
    store_client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "erasures" / "requests").mkdir(parents=True)
    key, told = seen_keys(3, today())[0], {b"s\x1fshopper-7:1": "1-0", b"s\x1fother": "2-0"}
    store_client.hset(key, mapping=told)
    first = SeenDigests(tmp_path, ["er-1", "er-2"])
    remove_seen_ids(store_client, {3}, {"shopper-7"}, first, 0)
    with (tmp_path / "erasures" / "requests" / "er-1.seen").open("ab") as file:
        file.write(b"half a li")
    first.add([b"another"])
    store_client.hset(key, mapping=told)  # of a backup
    again = SeenDigests(tmp_path, ["er-2", "er-1"])
    assert (len(again.known), again.holds(b"another")) == (2, True)
    assert remove_seen_ids(store_client, {3}, (), again, 0).removed == 1
    assert store_client.hkeys(key) == [b"s\x1fother"]
    assert not SeenDigests(tmp_path, ["er-3"]).known
    drop_old(tmp_path)
    assert SeenDigests(tmp_path, ["er-1"]).known
    os.utime(tmp_path / "erasures" / "requests" / "er-1.seen", (0, 0))
    drop_old(tmp_path)
    assert not SeenDigests(tmp_path, ["er-1"]).known
