"""What must hold: some of it at every step of the server, the rest when all has settled.

The names are those of docs/reliability.md.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import FIELDS, LiveState, parse_live, row_key
from services.event_log.entries import decode
from services.event_log.keys import cursor_key, log_key, owners_key
from services.event_log.links import Placed, first_links, first_owner_of, merge_histories
from services.event_log.receipt import stream_id
from services.models.transition import Transition
from simulator.disk import Disk
from simulator.server import Command, Server

_VERSION = FIELDS[2]
_CALLS = (b"EVALSHA", b"EVAL")
_ANSWERS = (b"ok", b"again", b"refused")
_ROW_END = row_key("{p000}" + "a" * 26)[-8:]


class ViolatedError(AssertionError):
    """An invariant does not hold; the message begins with its name."""


class Fingerprint:
    """An encoder whose state names every event applied and their order.

    An event whose id begins with ``poison`` cannot be applied.
    """

    version = "fingerprint-1"

    def replay(
        self, histories: Sequence[Sequence[EventRecord]], states: Sequence[bytes | None]
    ) -> list[bytes]:
        return [
            functools.reduce(_mixed, history, state or b"")
            for history, state in zip(histories, states, strict=True)
        ]


def _mixed(state: bytes, event: EventRecord) -> bytes:
    if event.id.startswith("poison"):
        raise ValueError("poison")
    return hashlib.blake2b(state + event.id.encode(), digest_size=8).digest()


class Monitor:
    """Watches every step of the server.

    Parameters
    ----------
    server
        The server; its ``on_step`` is taken.
    partitions
        Number of partitions.
    """

    def __init__(self, server: Server, partitions: int) -> None:
        self._server = server
        self._cursors = {cursor_key(p): p for p in range(partitions)}
        self._versions: dict[bytes, int] = {}
        self._epochs: dict[int, int] = {}
        self._positions: dict[int, tuple[int, int]] = {}
        self.answers = Counter[str]()
        server.on_step = self.step

    def rolled_back(self) -> None:
        """Start again from what the server remembers: it alone may go back."""
        self._versions = {
            key: _version(value[_VERSION])
            for key, value in self._server.data.items()
            if key.endswith(_ROW_END) and _VERSION in value
        }
        self._epochs.clear()
        self._positions.clear()

    def step(self, command: Command, reply: Any, effects: Sequence[Command]) -> None:
        """Judge one step, and count what the commit script answers."""
        if command[0] in _CALLS and type(reply) is list and reply and reply[0] in _ANSWERS:
            self.answers[" ".join(map(bytes.decode, reply[:2]))] += 1
        for effect in effects:
            if effect[0] == b"HSET":
                if effect[1].endswith(_ROW_END):
                    self._row(effect)
                elif effect[1] in self._cursors:
                    if b"cursor" in effect[2::2]:
                        self._commit(self._cursors[effect[1]], command)
                    elif effect[2] == b"archived":
                        self._archived(self._cursors[effect[1]], stream_id(effect[3]))
            elif effect[0] == b"XADD" and effect[1].endswith(b"dead"):
                self.answers["dead letter"] += 1
            elif effect[0] == b"XTRIM":
                self._trim(effect)
            elif effect[1].endswith(b"unjoined"):
                self.answers["left link" if effect[0] == b"SADD" else "late link"] += 1

    def _row(self, effect: Command) -> None:
        """I3: a user's version never decreases."""
        for field, value in zip(effect[2::2], effect[3::2], strict=True):
            if field == _VERSION:
                version, before = _version(value), self._versions.get(effect[1], 0)
                if version < before:
                    raise ViolatedError(f"I3: version {before} became {version}")
                self._versions[effect[1]] = version

    def _commit(self, partition: int, command: Command) -> None:
        """I4: only the epoch that holds the lease commits, and epochs only grow."""
        epoch = int(command[3 + int(command[2])])
        lease = self._server.hash(b"{p%03d}lease" % partition)
        if epoch != int(lease.get(b"epoch", b"0")) or epoch < self._epochs.get(partition, 0):
            raise ViolatedError(
                f"I4: epoch {epoch} committed p{partition:03d} while the lease has {lease}"
            )
        self._epochs[partition] = epoch

    def _archived(self, partition: int, position: tuple[int, int]) -> None:
        """I5, what it rests on: the archived position never goes back."""
        before = self._positions.get(partition, (0, 0))
        if position < before:
            raise ViolatedError(f"I5: p{partition:03d} archived up to {before}, now {position}")
        self._positions[partition] = position

    def _trim(self, effect: Command) -> None:
        """I5: the log is trimmed only below min(cursor, archived)."""
        held = self._server.hash(effect[1].removesuffix(b"log") + b"cursor")
        bound = min(stream_id(held.get(name, b"0-0")) for name in (b"cursor", b"archived"))
        if effect[2].upper() != b"MINID" or stream_id(effect[-1]) > bound:
            raise ViolatedError(f"I5: trimmed {effect[2:]} while the cursor hash is {held}")


def _version(value: bytes) -> int:
    parsed = parse_live([b"", b"", value, b"", b""])
    return 0 if parsed is None else parsed.version


def settled(server: Server, disk: Disk, partitions: int, acknowledged: dict[str, Any]) -> None:
    """Judge the end of a run: everything applied, nobody at work.

    Parameters
    ----------
    acknowledged
        Ids whose event must be there: all acknowledged ones, less those that a power loss
        may have taken.

    Raises
    ------
    ViolatedError
        I1: an id is missing or doubled. I2: a row is not the fold of its log. Dead letters:
        not each poison event has exactly one.
    """
    tail = [entry for p in range(partitions) for entry in _tail(server, p)]
    entries = sorted(
        [*disk.events(), *tail], key=lambda each: (each[0].ms, each[0].seq, each[1].id)
    )
    counts = Counter(record.id for _, record in entries)
    doubled = sorted(name for name, count in counts.items() if count > 1)
    if doubled:
        raise ViolatedError(f"I1: more than once in log and archive: {doubled[:5]}")
    lost = sorted(acknowledged.keys() - counts.keys())
    if lost:
        raise ViolatedError(f"I1: acknowledged and gone: {lost[:5]}")
    _rows(server, entries)
    letters = sum(len(server.stream(b"{p%03d}dead" % p).ids) for p in range(partitions))
    poison = sum(name.startswith("poison") for name in counts)
    if letters != poison:
        raise ViolatedError(f"{letters} dead letters for {poison} poison events")


def _tail(server: Server, partition: int) -> list[Any]:
    held = server.hash(cursor_key(partition))
    stream = server.stream(log_key(partition))
    cursor, archived = (stream_id(held.get(name, b"0-0")) for name in (b"cursor", b"archived"))
    if stream.ids and stream.ids[-1] > cursor:
        raise ViolatedError(f"not drained: p{partition:03d} has entries after {cursor}")
    entries = stream.reply(stream.after(archived), len(stream.ids))
    return decode(
        (name, dict(zip(fields[::2], fields[1::2], strict=True)))  # type: ignore[misc]
        for name, fields in entries
    )


def _rows(server: Server, entries: list[Placed]) -> None:
    """I2: row(u) = fold(log(u) up to the cursor), and of the anonymous ids that are u's."""
    logs: dict[str, list[Placed]] = {}
    for position, event in entries:
        if not event.id.startswith("poison"):  # dead letters, of no effect
            logs.setdefault(event.user, []).append((position, event))
    histories = _woven(server, logs)
    folded = Transition(Fingerprint()).fold(histories)
    rows = {key for key in server.data if key.endswith(_ROW_END)}
    strangers = rows - {row_key(user) for user in histories}
    if strangers:
        raise ViolatedError(f"I2: rows of users without events: {strangers}")
    for user, history in histories.items():
        row = _live(server, user)
        if row != folded.get(user):
            raise ViolatedError(
                f"I2: {user} has version {row and row.version}, the fold of "
                f"{[event.id for event in history]} has {folded.get(user) and folded[user].version}"
            )


def _woven(server: Server, logs: dict[str, list[Placed]]) -> dict[str, list[EventRecord]]:
    """Return histories as one log would hold them, of each anonymous id by its owner's note."""
    histories: dict[str, list[EventRecord]] = {}
    for user, own in logs.items():
        links = first_links(own)
        owners = {a: server.hash(owners_key(partition_of(a))).get(a.encode()) for a in links}
        unowned = [anonymous for anonymous, note in owners.items() if not note]
        if unowned:
            raise ViolatedError(f"links: {user} has events of {unowned}, which nobody owns")
        theirs = {a: logs[a] for a, note in owners.items() if a in logs and _is_of(note, user)}
        histories[user] = merge_histories(own, theirs)
    return histories


def _is_of(note: bytes | None, user: str) -> bool:
    first = first_owner_of(note)
    return first is not None and first[0] == user


def _live(server: Server, user: str) -> LiveState | None:
    found = server.hash(row_key(user))
    try:
        return parse_live([found.get(field) for field in FIELDS])
    except DecodeError as error:
        raise ViolatedError(f"I2: the row of {user} cannot be read") from error
