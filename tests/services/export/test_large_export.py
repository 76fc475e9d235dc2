"""The export of a user of any size: bounded memory, and a loop that others get their turn of."""

from collections.abc import Callable

import orjson
import psutil
import pytest
from api_calls import view
from gateway_thread import Api
from loop_watch import LoopWatch

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord

BOUND_S = 0.020
PART = 20_000
MEGABYTE = 1_000_000


def archive_events(api: Api, user: str, count: int) -> None:
    """Put imported events of a user into the archive."""
    archive = Archive(api.settings.home / "archive" / "events")
    pseudonym = Pseudonyms.load(api.settings.home).of_user(user)
    for start in range(0, count, PART):
        some = [
            (
                LogPosition(0, 10**12 + n),
                EventRecord(
                    id=f"{user}-{n}", type="view_item", user=pseudonym, time_ms=10**12 + n,
                    received_ms=10**12 + n, items=[ItemRecord(f"item-{n % 97}", 1.0, 2.5)],
                    properties={"text": "x" * 100}, consent={"ads": True} if n % 50 == 0 else None,
                ),
            )
            for n in range(start, min(count, start + PART))
        ]  # fmt: skip
        archive.append(f"import-file-{start}", some)


@pytest.mark.parametrize(
    ("archived", "live"), [(10_000, 2_000), pytest.param(200_000, 20_000, marks=pytest.mark.slow)]
)
def test_a_long_history_is_written_within_bounds(
    make_api: Callable[..., Api], archived: int, live: int
) -> None:
    api = make_api()
    with api.client() as client:
        for start in range(0, live, 1_000):
            some = [view("big", id=f"live-{n}") for n in range(start, min(live, start + 1_000))]
            receipt = client.post_batch(some)["receipt"]
        client.wait_applied(receipt)
        archive_events(api, "big", archived)
        process, watch, size, most = psutil.Process(), LoopWatch(api.loop_thread), 0, 0
        for _ in client.stream_export("big"):  # what is made once is made
            break
        before, tail = process.memory_info().rss, b""
        with watch.watching():
            for piece in client.stream_export("big"):
                size += len(piece)
                tail = (tail + piece)[-400:]
                most = max(most, process.memory_info().rss - before)
    counts = orjson.loads(tail[tail.index(b'"counts":') + 9 : tail.index(b',"complete":true}')])
    assert (counts["events"], counts["consent_history"]) == (archived + live, archived // 50)
    print(
        f"{size / MEGABYTE:.0f} MB, {most / MEGABYTE:.0f} MB, {watch.most_s * 1000:.1f} ms",
        watch.where,
    )
    assert most < 64 * MEGABYTE
    assert watch.most_s < BOUND_S, watch.where
