"""Impressions: what was recommended goes into the log, so that what follows can be attributed.

An answer's items become a ``view_item_list`` event of the user with the answer's
``recommendation_id`` and placement, appended after the answer was sent. What cannot be
appended in time is counted as lost; an answer never waits for it. Belongs here: the queue
and its sender. Not here: what was shown (`services.recommend`).
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from prometheus_client import Counter

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.schema import MAX_ITEMS, EventRecord, ItemRecord
from services.event_log.append import Appender
from services.http.answer_schemas import Recommended
from services.runtime.outbox import Outbox

TYPE: Final = "view_item_list"
SOURCE: Final = "portrait"
MOST_WAITING: Final = 10_000
"""Impressions that may wait to be appended; more are lost."""
ATTEMPTS: Final = 3
_GROUP: Final = 200
_PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Shown(NamedTuple):
    """One answer, as it was shown.

    Attributes
    ----------
    pseudonym, anonymous
        Who saw it.
    items
        Entries of the answer: ``item_id``, ``rank``, and ``propensity`` where the list explores.
    """

    pseudonym: str
    anonymous: bool
    recommendation_id: str
    placement: str | None
    items: Sequence[Recommended]
    time_ms: int
    received_ms: int


class Impressions:
    """Appends what was shown, in the background; counts ``logged``, ``lost``, ``erased``."""

    def __init__(self, appender: Appender, counter: Counter) -> None:
        self._appender = appender
        self._counter = counter
        self._outbox = Outbox[Shown](self._send, self._lose, most=MOST_WAITING, group=_GROUP)
        for outcome in ("logged", "lost", "erased"):
            counter.labels(outcome)  # shown as 0 before the first

    def start(self) -> None:
        """Begin to send."""
        self._outbox.start()

    async def stop(self) -> None:
        """Send what waits, for two seconds at most, and end."""
        await self._outbox.stop()

    def note(self, shown: Shown) -> None:
        """Take one answer; never waits."""
        self._outbox.put(shown)

    def _lose(self, lost: Sequence[Shown]) -> None:
        self._counter.labels("lost").inc(sum(len(records(shown)) for shown in lost))

    async def _send(self, group: list[Shown]) -> None:
        await self._append([record for shown in group for record in records(shown)])

    async def _append(self, events: list[EventRecord]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                done = await self._appender.append(events)
            except StoreUnavailableError as error:
                _log.warning("impressions_put_off", events=len(events), error=str(error))
                if attempt + 1 < ATTEMPTS:
                    await asyncio.sleep(_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the next impressions must still be sent
                _log.error("impressions_failed", events=len(events), exc_info=error)
                break
            else:
                erased = sum(one.status == "erased" for one in done)
                self._counter.labels("logged").inc(len(done) - erased)
                self._counter.labels("erased").inc(erased)
                return
        self._counter.labels("lost").inc(len(events))


def records(shown: Shown) -> list[EventRecord]:
    """Return the events of one answer: one, or more if it has over 200 items."""
    found = []
    for part, start in enumerate(range(0, len(shown.items), MAX_ITEMS)):
        some = shown.items[start : start + MAX_ITEMS]
        propensities = [each["propensity"] for each in some if "propensity" in each]
        found.append(
            EventRecord(
                id=f"{shown.recommendation_id}.{part}",
                type=TYPE,
                user=shown.pseudonym,
                anonymous=shown.anonymous,
                time_ms=shown.time_ms,
                received_ms=shown.received_ms,
                source=SOURCE,
                items=[ItemRecord(each["item_id"], position=each["rank"]) for each in some],
                recommendation_id=shown.recommendation_id,
                placement=shown.placement,
                properties={"propensities": propensities} if propensities else None,
            )
        )
    return found
