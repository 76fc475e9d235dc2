"""The judge of chaos: every acknowledged event against log, archive and profile.

Reads everything the plain way, partition by partition, and folds it from scratch. Belongs
here: what must hold. Not here: what was done to the service.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow.parquet as pq

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_rows import read_live
from services.event_log.dead_letters import letters, read_voided
from services.event_log.entries import read_entries
from services.event_log.keys import cursor_key, log_key
from services.lab.chaos.load import Sender
from services.models.transition import Transition

_EXAMPLES: Final = 5

Entries = dict[tuple[LogPosition, str], EventRecord]


@dataclass(slots=True)
class Findings:
    """What is wrong, in numbers.

    Attributes
    ----------
    events_in_log, users
        Events that stand in log or archive, and users who have some.
    lost
        Acknowledged events that stand nowhere.
    forgotten
        Such events whose loss a power cut excuses; not among ``lost``.
    doubled
        Events that stand at more than one position.
    misordered
        Users whose events stand in another order than they were sent in.
    wrong
        Users whose row is not the fold of their history.
    dead
        Dead letters.
    examples
        A few of the above, to begin a search with.
    """

    events_in_log: int = 0
    users: int = 0
    lost: int = 0
    forgotten: int = 0
    doubled: int = 0
    misordered: int = 0
    wrong: int = 0
    dead: int = 0
    examples: list[str] = field(default_factory=list)

    def violations(self) -> dict[str, int]:
        """Return what must not be, by name."""
        names = ("lost", "doubled", "misordered", "wrong", "dead")
        return {name: count for name in names if (count := getattr(self, name))}

    def note(self, violation: str, what: str) -> None:
        """Count one and keep it as an example while there are few of its kind."""
        setattr(self, violation, getattr(self, violation) + 1)
        if getattr(self, violation) <= _EXAMPLES:
            self.examples.append(f"{violation}: {what}")


class Check:
    """Goes through the partitions one by one, then through what was acknowledged.

    Parameters
    ----------
    client
        Of the store; nothing else may use it meanwhile.
    archive
        Of the service.
    transition
        f(u, x), as the service's updaters have it.
    pseudonyms
        Gives the users' pseudonyms.
    senders
        What was sent.
    cuts_s
        Times of power cuts.
    """

    def __init__(
        self,
        client: Any,
        archive: Archive,
        transition: Transition,
        pseudonyms: Pseudonyms,
        senders: Sequence[Sender],
        cuts_s: Sequence[float] = (),
    ) -> None:
        self._client = client
        self._archive = archive
        self._transition = transition
        self._senders = {sender.name: sender for sender in senders}
        self._at_risk = {sender.name: sender.at_risk(cuts_s) for sender in senders}
        self._counts = {sender.name: bytearray(sender.sent) for sender in senders}
        self._pseudonyms = {
            user: pseudonyms.of_user(user) for sender in senders for user in sender.users
        }
        self._found = Findings()

    def partition(self, partition: int) -> None:
        """Check order and rows of one partition's users."""
        histories: dict[str, list[tuple[LogPosition, EventRecord]]] = defaultdict(list)
        for (position, _), record in sorted(
            self._read(partition).items(), key=lambda item: item[0]
        ):
            histories[record.user].append((position, record))
            self._found.events_in_log += 1
        self._found.users += len(histories)
        self._found.dead += len(letters(self._client, [partition], limit=2**31))
        strangers = {user for user, history in histories.items() if not self._placed(history)}
        self._rows(partition, histories, strangers)

    def finish(self) -> Findings:
        """Look for every acknowledged event and return everything found."""
        for name, counts in self._counts.items():
            sender, at_risk = self._senders[name], self._at_risk[name]
            for number, count in enumerate(counts):
                if count > 1:
                    self._found.note("doubled", f"{name}-{number} stands at {count} positions")
                elif count == 0 and number < sender.acknowledged:
                    if number // sender.batch in at_risk:
                        self._found.forgotten += 1
                    else:
                        self._found.note("lost", f"{name}-{number} of {sender.user(number)}")
        return self._found

    def _read(self, partition: int) -> Entries:
        """Return what stands in log and archive; the same entry in both is one."""
        found = Entries()
        for name, fields in read_entries(self._client, log_key(partition)):
            record = EventRecord.decode(fields[b"e"])
            found[LogPosition.parse(name), record.id] = record
        for part in self._archive.parts_of(partition):
            table = pq.read_table(part, columns=["log_ms", "log_seq", "record"])
            for ms, seq, data in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            ):
                record = EventRecord.decode(data)
                found.setdefault((LogPosition(ms, seq), record.id), record)
        return found

    def _placed(self, history: Sequence[tuple[LogPosition, EventRecord]]) -> bool:
        """Count a user's events and say whether all are theirs and were sent."""
        newest, ordered = -1, True
        for position, record in history:
            name, _, digits = record.id.rpartition("-")
            sender, number = self._senders.get(name), int(digits or -1)
            if (
                sender is None
                or not 0 <= number < sender.sent
                or self._pseudonyms[sender.user(number)] != record.user
            ):
                self._found.examples.append(f"stranger: {record.id} at {position}")
                return False
            counts = self._counts[name]
            counts[number] = min(255, counts[number] + 1)
            if counts[number] == 1 and number // sender.batch not in self._at_risk[name]:
                ordered, newest = ordered and number > newest, max(newest, number)
        if not ordered:
            self._found.note("misordered", history[0][1].user)
        return True

    def _rows(
        self,
        partition: int,
        histories: dict[str, list[tuple[LogPosition, EventRecord]]],
        strangers: set[str],
    ) -> None:
        """Compare every row with the fold of what is applied."""
        cursor = LogPosition.parse(self._client.hget(cursor_key(partition), "cursor") or b"0-0")
        void = read_voided(self._client, partition)
        applied = {
            user: [
                record for position, record in history
                if position <= cursor and (position.ms, position.seq) not in void
            ]
            for user, history in histories.items()
        }  # fmt: skip
        expected = self._transition.fold({user: h for user, h in applied.items() if h})
        users = sorted(
            {e for e in self._pseudonyms.values() if partition_of(e) == partition} | set(histories)
        )
        for user, row in zip(users, read_live(self._client, users), strict=True):
            if row != expected.get(user) or user in strangers:
                events = len(applied.get(user, ()))
                self._found.note(
                    "wrong", f"{user} has version {row and row.version}, its history {events}"
                )
