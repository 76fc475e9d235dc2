"""The browser's privacy signal, ``Sec-GPC: 1``: what it says for the ids of an event.

Global Privacy Control denies ads and personalization. It becomes a statement of consent of each id,
once; the append script knows whom it was written for (`services.event_log.unprofiled`).
"""

from collections.abc import Mapping, Sequence

from feature_repo.events.schema import EventRecord
from services.event_log.unprofiled import GPC, GPC_DENIES


def statements_of(headers: Mapping[str, str], records: Sequence[EventRecord]) -> list[EventRecord]:
    """Return the statements that a request's signal makes for the ids of its events."""
    if headers.get("sec-gpc") != "1":
        return []
    said = dict[str, EventRecord]()
    for record in records:
        said.setdefault(record.user, _deny(record, record.user, anonymous=record.anonymous))
        if record.linked is not None:
            said.setdefault(record.linked, _deny(record, record.linked, anonymous=True))
    return list(said.values())


def _deny(record: EventRecord, user: str, *, anonymous: bool) -> EventRecord:
    return EventRecord(
        id=f"{GPC}-{user[6:]}", type="consent_updated", user=user, anonymous=anonymous,
        time_ms=record.received_ms, received_ms=record.received_ms, source=GPC,
        consent=dict(GPC_DENIES), key=record.key,
    )  # fmt: skip
