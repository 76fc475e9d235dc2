"""The store's removals, one by one: what is somebody else's stays."""

import redis

from services.erasure.store import remove_seen_ids
from services.event_log.keys import seen_keys, today


def test_ids_of_others_events_stay_known(store_client: redis.Redis) -> None:
    key = seen_keys(3, today())[0]
    theirs = ["s\x1f1", "s\x1fb1f4f4a3", "s\x1forder-1", "s\x1fshopper-70", "s\x1fmyshopper-7"]
    own = ["s\x1fshopper-7:1", "s\x1fx_shopper-7_y", "~\x1fs\x1fshopper-7"]
    store_client.hset(key, mapping=dict.fromkeys([*theirs, *own], "1-0"))
    removal = remove_seen_ids(store_client, {3}, {"1", "shopper-7"}, 0)
    assert (removal.found, removal.removed) == (3, 3)
    assert sorted(name.decode() for name in store_client.hkeys(key)) == sorted(theirs)
    assert removal.waits_until_ms
