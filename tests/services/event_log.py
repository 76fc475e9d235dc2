"""Small events, appending them, and updaters that apply them: for tests of the update path."""

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stalls import patient

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.online.connection import connect_async
from services.event_log.append import Appender
from services.event_log.receipt import Appended
from services.models.transition import Transition
from services.settings import Settings
from services.update.updater import UpdaterLoop

PARTITIONS = 4
PSEUDONYMS = Pseudonyms(key=b"0" * 16, partitions=PARTITIONS)


class Sum:
    """A stand-in encoder: the state is the list of event ids seen, so order and doubles show."""

    def __init__(self, version: str = "sum-1") -> None:
        self.version = version
        self.sizes = list[int]()

    def replay(
        self, histories: Sequence[Sequence[EventRecord]], states: Sequence[bytes | None]
    ) -> list[bytes]:
        self.sizes += [len(events) for events in histories]
        if any(event.id.startswith("poison") for events in histories for event in events):
            raise ValueError("poison")
        return [
            (s or b"") + b"".join(e.id.encode() + b";" for e in h)
            for s, h in zip(states, histories, strict=True)
        ]


def event(user: str, name: str, time_ms: int = 1_700_000_000_000, **given: Any) -> EventRecord:
    return EventRecord(
        id=name, type="view_item", user=PSEUDONYMS.of_user(user), time_ms=time_ms,
        received_ms=time_ms, items=[ItemRecord("A")], **given,
    )  # fmt: skip


def append(url: str, records: Sequence[EventRecord], **given: Any) -> list[Appended]:
    async def run() -> list[Appended]:
        client = connect_async(patient(url))
        try:
            return await Appender(client, **given).append(records)
        finally:
            await client.aclose()

    return asyncio.run(run())


def users_of(partition: int) -> Iterator[str]:
    """User ids that belong to a partition."""
    number = 0
    while True:
        number += 1
        if PSEUDONYMS.of_user(f"u{number}").startswith(f"{{p{partition:03d}}}"):
            yield f"u{number}"


def loop(
    url: str, home: Path, learned: Sum | None = None, partitions: int = PARTITIONS, **given: Any
) -> UpdaterLoop:
    settings = Settings(home=home, partitions=partitions, archive_every_s=3600)
    return UpdaterLoop(settings, url, Transition(learned), **given)


def drain(updater: UpdaterLoop) -> None:
    """One step of an updater, without its thread."""
    updater._next_share_s = 0.0
    updater._share()
    updater._round()


@contextmanager
def running(updaters: Iterable[UpdaterLoop]) -> Iterator[None]:
    threads = [(u, threading.Thread(target=u.run, daemon=True)) for u in updaters]
    for _, thread in threads:
        thread.start()
    try:
        yield
    finally:
        for updater, _ in threads:
            updater.stop()
        for _, thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
