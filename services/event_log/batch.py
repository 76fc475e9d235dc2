"""One partition's share of a round: log entries made into events, cut where they must be.

Pure: no input or output. A batch ends before the event that would give one user more than
their share (nobody waits long for one busy user), and with an entry that switches the model
(what follows it belongs to the next).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from feature_repo.events.schema import EventRecord
from services.event_log.entries import LogEntry
from services.models.transition import dead_letter

USER_EVENTS: Final = 128
"""Events of one user that one round applies."""


@dataclass(slots=True)
class Batch:
    """Entries of one partition in log order.

    Attributes
    ----------
    end
        Stream id of the last entry.
    events
        The events that decode.
    indices
        For each of ``events`` the index of its entry.
    entries
        The entries read.
    dead
        Dead letters of those that do not decode, and of events that were buried.
    model
        Model version that the partition follows after this batch; None: as before.
    taken
        Number of entries that the batch takes; fewer than were read if it was cut.
    size
        Bytes of the records read.
    """

    partition: int
    end: str
    entries: Sequence[LogEntry]
    events: list[EventRecord] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    model: str | None = None
    taken: int = 0
    size: int = 0

    def bury(self, index: int, reason: str) -> None:
        """Make the event at ``index`` of ``events`` a dead letter; it is none of them any more."""
        del self.events[index]
        name, fields = self.entries[self.indices.pop(index)]
        self.dead.append(dead_letter(name.decode(), reason, fields[b"e"]))


def cut_batch(partition: int, entries: Sequence[LogEntry]) -> Batch:
    """Return the batch that ``entries`` (at least one) begin with."""
    batch = Batch(partition, "", entries, size=sum(len(f.get(b"e", b"")) for _, f in entries))
    tag = f"{{p{partition:03d}}}"
    events, indices, decode = batch.events, batch.indices, EventRecord.decode
    counts = dict[str, int]()
    taken = len(entries)
    for index, (name, fields) in enumerate(entries):
        payload = fields.get(b"e")
        if payload is None:
            if b"m" in fields:
                batch.model = fields[b"m"].decode()
                taken = index + 1
                break
            if b"n" in fields:  # says nothing: the log was to move on
                continue
            batch.dead.append(dead_letter(name.decode(), "neither event nor model", b""))
            continue
        try:
            event = decode(payload)
        except Exception:  # noqa: BLE001 - whatever stands in the log, it must go on
            batch.dead.append(dead_letter(name.decode(), "does not decode", payload))
            continue
        user = event.user
        if not user.startswith(tag):
            batch.dead.append(dead_letter(name.decode(), "of another partition", payload))
            continue
        count = counts.get(user, 0)
        if count == USER_EVENTS:
            taken = index
            break
        counts[user] = count + 1
        events.append(event)
        indices.append(index)
    batch.taken = taken
    batch.end = entries[taken - 1][0].decode()
    return batch
