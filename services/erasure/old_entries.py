"""Entries that the store keeps for a while only: decisions, dead letters, audiences' changes.

They go by their age, whoever they are about. Not here: profiles (`idle`).
"""

from typing import Any, Final

import orjson

from feature_repo.erasure.removal import Removal
from feature_repo.online.connection import translated
from services.audiences.watch import CHANGES
from services.campaigns import language
from services.campaigns.keys import CAMPAIGNS, decisions_key
from services.campaigns.ledger import log_note, parse_decision
from services.event_log import dead_letters

_DAY_MS: Final = 86_400_000


def sweep_letters(
    client: Any, partitions: int, before_ms: int, *, dry_run: bool = False
) -> Removal:
    """Drop dead letters from before a moment, epoch milliseconds: they are raw events."""
    dropped = 0
    for partition in range(partitions):
        old = [
            letter.id
            for letter in dead_letters.letters(client, [partition], limit=2**31)
            if int(letter.id.split("-")[1]) < before_ms
        ]
        if not dry_run:
            dead_letters.drop(client, range(partitions), old)
        dropped += len(old)
    return Removal("dead_letters", dropped, dropped)


def sweep_changes(client: Any, before_ms: int, *, dry_run: bool = False) -> Removal:
    """Drop from before a moment who entered and left audiences."""
    with translated():
        if dry_run:
            count = len(client.xrange(CHANGES, "-", f"({before_ms}-0"))
        else:
            count = int(client.xtrim(CHANGES, minid=f"{before_ms}-0", approximate=False))
    return Removal("audience_changes", count, count)


def sweep_decisions(client: Any, now_ms: int, days: int, *, dry_run: bool = False) -> Removal:
    """Drop decisions so many days after the end of their campaign's window.

    They go by themselves in the time that was set when they were made; this is for a shorter one.
    Of a campaign that is gone they count from the decision.
    """
    dropped = 0
    with translated():
        ends = {
            name.decode(): language.read(orjson.loads(body)["campaign"]).window.until_ms
            for name, body in client.hgetall(CAMPAIGNS).items()
        }
        for key in client.scan_iter(match=decisions_key("*"), count=1000):
            kept = client.hgetall(key)
            old = list[bytes]()
            for name, value in kept.items():
                decided = parse_decision(name, value)
                if decided is None:
                    continue
                end_ms = ends.get(decided[0], int(decided[2].draft["at_ms"]))
                if end_ms + days * _DAY_MS < now_ms:
                    old += (name, log_note(name))
                    dropped += 1
            if old and not dry_run:
                client.hdel(key, *old)
    return Removal("decisions", dropped, dropped)
