"""Recorded events through the live service, and the proof that it kept them exactly.

Belongs here: posting held-back events in batches, and comparing live rows with a fold of
the same events from scratch. Not here: starting the service, or how the result is shown.
"""

import time
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import Event, EventRecord, to_record
from feature_repo.user_profile.order_memory import without_repeats
from services.client import Client
from services.runtime.progress import ProgressStep
from services.settings import Settings

BATCH_EVENTS = 500
TOLERANCE = 1e-5
"""Largest difference allowed between a streamed and an unrolled learned state."""


def read_held_out(home: Path) -> list[EventRecord]:
    """Return the events after the cut-off, in the form the service will store them in."""
    pseudonyms = Pseudonyms.load(home)
    records = []
    with (home / "replay.ndjson").open("rb") as lines:
        for line in lines:
            event = Event.model_validate_json(line)
            assert event.time is not None
            records.append(to_record(event, pseudonyms, event.time))
    return records


def with_held_out(home: Path, cut_off: datetime) -> list[tuple[str, list[EventRecord]]]:
    """Return every user's archived events before the cut-off, then the held-back ones."""
    archive = Archive(home / "archive" / "events")
    events = dict(archive.histories(until_ms=round(cut_off.timestamp() * 1000)))
    for record in read_held_out(home):
        events.setdefault(record.user, []).append(record)
    return sorted(events.items())


def replay(
    home: Path, client: Client, tell: ProgressStep
) -> tuple[dict[str, Any], tuple[list[float], list[int]], str]:
    """Post the held-back events in batches; return counts, the curve and the busiest user."""
    events = [orjson.loads(line) for line in (home / "replay.ndjson").open("rb")]
    baskets = Counter(event["user_id"] for event in events if event["type"] == "purchase")
    started_s, acknowledged = time.monotonic(), 0
    times_s, applied = [0.0], [0]
    for begin in range(0, len(events), BATCH_EVENTS):
        answer = client.post_batch(events[begin : begin + BATCH_EVENTS])
        acknowledged += answer["accepted"] + answer["duplicates"]
        times_s.append(time.monotonic() - started_s)
        applied.append(client.applied())
        tell(acknowledged, len(events), "events")
    client.wait_applied(answer["receipt"])
    seconds = time.monotonic() - started_s
    times_s.append(seconds)
    applied.append(client.applied())
    tell.note = f"{acknowledged:,} events, {acknowledged / seconds:,.0f} a second"
    return (
        {
            "events": len(events), "acknowledged": acknowledged, "applied": applied[-1],
            "seconds": round(seconds, 2),
        },
        (times_s, applied),
        baskets.most_common(1)[0][0],
    )  # fmt: skip


def parity(settings: Settings, cut_off: datetime, tell: ProgressStep) -> dict[str, Any]:
    """Compare each replayed user's live row with a fold of the same events from scratch."""
    from feature_repo.online.connection import connect
    from feature_repo.online.live_rows import read_live
    from feature_repo.user_profile import explicit
    from services.hosting.embedded import running_url
    from services.models.loaded import pin

    url = running_url(settings.home)
    assert url is not None
    replayed = {record.user for record in read_held_out(settings.home)}
    whole = [pair for pair in with_held_out(settings.home, cut_off) if pair[0] in replayed]
    users, events = [user for user, _ in whole], [history for _, history in whole]
    with closing(connect(url)) as client:
        live = read_live(client, users)
        pinned = pin(settings, client)
    wrong = set[str]()
    for index, (user, history, row) in enumerate(zip(users, events, live, strict=True)):
        if row is None or explicit.encode(explicit.fold(history)) != row.profile:
            wrong.add(user)
        if index % 50 == 0:
            tell(index, len(users), "profiles")
    deviation = _deviations(pinned, events, [row.learned if row else b"" for row in live])
    wrong |= {user for user, value in zip(users, deviation, strict=True) if value > TOLERANCE}
    tell.note = f"{len(users):,} profiles, {len(wrong)} mismatches"
    return {
        "users": len(users), "mismatches": len(wrong), "events": sum(map(len, events)),
        "learned_max_difference": max(deviation, default=0.0),
    }  # fmt: skip


def _deviations(
    settings: Settings, histories: list[list[EventRecord]], live: list[bytes]
) -> list[float]:
    """Return per user how far the live learned state is from an unrolled one; 0 without a model."""
    from services.models.loaded import load_transition

    transition = load_transition(settings)
    if transition is None:
        return [0.0] * len(live)
    unrolled = transition.replay([without_repeats(history) for history in histories])
    return [transition.difference(a, b) for a, b in zip(live, unrolled, strict=True)]
