"""What the store keeps for a while only goes by its age, and younger entries stay."""

from typing import Any

import msgspec
import orjson

from services.audiences.watch import CHANGES
from services.campaigns import language
from services.campaigns.keys import CAMPAIGNS, decisions_key
from services.campaigns.ledger import log_note
from services.erasure.old_entries import sweep_changes, sweep_decisions, sweep_letters
from services.event_log.dead_letters import letters

DAY_MS = 86_400_000
NOW_MS = 2_000 * DAY_MS


def _campaign(until: str) -> bytes:
    body = {"audience": "a", "offer": {"id": "o"}, "channel": "email", "rank_by": "random",
            "window": {"from": "1970-01-01", "until": until}}  # fmt: skip
    return orjson.dumps({"campaign": language.to_document(language.read(body))})


def test_decisions_go_so_long_after_their_campaign(store_client: Any) -> None:
    store_client.hset(CAMPAIGNS, mapping={
        "over": _campaign("1975-01-01"), "runs": _campaign("2099-01-01"),
    })  # fmt: skip
    user, other = decisions_key("{p001}" + "a" * 26), decisions_key("{p002}" + "b" * 26)
    for key in (user, other):
        for name, at in (("over", 1), ("runs", 1), ("gone", 1), ("gone-lately", 1_990)):
            field = f"{name}\x1fd"
            draft = orjson.dumps({"at_ms": at * DAY_MS})
            store_client.hset(key, mapping={field: b"-" + draft, log_note(field.encode()): "1"})
    kept = {f"{name}\x1fd" for name in ("runs", "gone-lately")}
    kept |= {log_note(field.encode()).decode() for field in kept}
    assert sweep_decisions(store_client, NOW_MS, 400, dry_run=True).removed == 0 + 2
    assert sweep_decisions(store_client, NOW_MS, 100, dry_run=True).removed == 4
    assert store_client.hlen(user) == 8
    assert sweep_decisions(store_client, NOW_MS, 100).removed == 4
    for key in (user, other):
        assert {name.decode() for name in store_client.hgetall(key)} == kept
    assert sweep_decisions(store_client, NOW_MS, 100).removed == 0


def test_letters_and_changes_go_by_their_age(store_client: Any) -> None:
    for day in (1, 2, 3):
        letter = {"entry": f"{day}-0", "reason": "poison", "record": b"x"}
        store_client.xadd("{p001}dead", {"e": msgspec.msgpack.encode(letter)}, f"{day * DAY_MS}-0")
        store_client.xadd(CHANGES, {"user": f"u{day}"}, f"{day * DAY_MS}-0")
    for dry_run in (True, False):
        assert sweep_letters(store_client, 2, 3 * DAY_MS, dry_run=dry_run).removed == 2
        assert sweep_changes(store_client, 3 * DAY_MS, dry_run=dry_run).removed == 2
        left = 3 if dry_run else 1
        assert len(letters(store_client, [1])) == store_client.xlen(CHANGES) == left
