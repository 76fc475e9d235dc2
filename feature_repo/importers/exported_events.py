"""An export of a user as a source: their events as they were kept, in the order of the fold.

What Portrait exported it takes again: events come with the times, keys and links that they had, so
that the profile that follows is the one that was exported. Belongs here: reading that document
(`services.export.schemas` has its shape). Whether an event is new, and whether its user may be
profiled, is `publish`'s.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pandas as pd

from feature_repo.archive.event_archive import LogPosition
from feature_repo.errors import InvalidSourceError
from feature_repo.events.fields import parse_time
from feature_repo.events.pseudonyms import Pseudonyms, is_pseudonym, partition_of
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.importers.files import open_text, parts_of, readable
from feature_repo.importers.json_members import read_members
from feature_repo.importers.lines import EARLIEST_IMPORTED_MS
from feature_repo.importers.rows import Refused
from feature_repo.importers.source import Chunk, Placed, Source, key_of
from feature_repo.user_profile.consent import (
    TERMS,
    counted_ms,
    read_statements,
    spellings,
)

NAME: Final = "export"
SCHEMA: Final = "/v1/schemas/export"
VERSION: Final = 1
CHUNK_ROWS: Final = 5_000
_SHOWN: Final = frozenset(
    {"time", "received_at", "position", "late", "of", "linked", "applied", "items"}
)
_KEPT: Final = frozenset(EventRecord.__struct_fields__) - {
    "user", "time_ms", "received_ms", "linked", "items", "anonymous",
}  # fmt: skip


def open_export(path: Path, pseudonyms: Pseudonyms, *, latest_ms: int) -> Source:
    """Open a file that `portrait privacy export` wrote.

    Parameters
    ----------
    pseudonyms
        Of the shop that imports. An export of another shop keeps its anonymous ids apart from
        this one's: nobody can say which visitors they are.
    latest_ms
        Times after it are refused, epoch milliseconds.

    Raises
    ------
    InvalidSourceError
        If there is no such file; while it is read, if it is no export, or not a whole one.
    """
    if path.is_dir():
        raise InvalidSourceError(f"{path} is a folder: an export is one file")
    (part,) = parts_of(path)
    reader = _Reader(pseudonyms, latest_ms)

    def chunks() -> Iterator[Chunk]:
        rows = 0
        with readable(part, "ndjson", "utf-8"), open_text(part, "utf-8") as text:
            found = reader.read(read_members(text, frozenset({"events"})))
            while batch := list(islice(found, CHUNK_ROWS)):
                yield _to_chunk(batch, rows)
                rows += len(batch)

    return Source(NAME, key_of(NAME, path), 0, chunks())


def _to_chunk(batch: list[Placed | Refused], start: int) -> Chunk:
    placed, refused = list[tuple[int, Placed]](), list[tuple[int, Refused]]()
    for row, one in enumerate(batch, start):
        if isinstance(one, Refused):
            refused.append((row, one))
        else:
            placed.append((row, one))
    return Chunk(len(batch), pd.DataFrame(), refused=refused, placed=placed)


class _Reader:
    """Makes events of the document's members."""

    def __init__(self, pseudonyms: Pseudonyms, latest_ms: int) -> None:
        self._pseudonyms, self._latest_ms = pseudonyms, latest_ms
        self._user, self._anonymous = "", False
        self._name_of: Callable[[Any], str] = str
        self._said = set[tuple[str, bool, int]]()
        self._last = 0

    def read(self, members: Iterator[tuple[str, Any]]) -> Iterator[Placed | Refused]:
        head, complete = dict[str, Any](), False
        for name, value in members:
            if name == "events":
                if not self._user:
                    self._begin(head)
                yield self._event(value)
            elif name in {"schema", "schema_version", "user_id", "identity", "consents"}:
                head[name] = value
            elif name == "complete":
                complete = value is True
        if not complete:
            raise InvalidSourceError(
                "the export was broken off: it does not say complete at its end"
            )
        if not self._user:
            self._begin(head)
        yield from self._statements(head.get("consents"))

    def _begin(self, head: dict[str, Any]) -> None:
        """Find out whose the export is, and what its anonymous ids are called here."""
        if (head.get("schema"), head.get("schema_version")) != (SCHEMA, VERSION):
            raise InvalidSourceError(f"no export: schema is not {SCHEMA}, version {VERSION}")
        identity, user_id = head.get("identity"), head.get("user_id")
        if not isinstance(identity, dict) or not isinstance(user_id, str) or not user_id:
            raise InvalidSourceError("the export does not say whose it is: user_id and identity")
        theirs, id_type = identity.get("pseudonym"), identity.get("id_type")
        linked = identity.get("linked")
        names = [one.get("pseudonym") for one in linked] if isinstance(linked, list) else []
        visitor = self._pseudonyms.of_anonymous(user_id)
        mine = visitor if id_type == "anonymous_id" else self._pseudonyms.of_user(user_id)
        ours = theirs == mine or (id_type == "linked_id" and visitor in names)
        if id_type == "linked_id":
            if not ours:
                raise InvalidSourceError(
                    "the export was asked for by an anonymous id, and of another shop it says not "
                    "which user that is: export it by the user's own id"
                )
            mine = str(theirs)
        self._user, self._anonymous = mine, id_type == "anonymous_id"
        self._name_of = self._check_name if ours else self._rename

    def _check_name(self, name: Any) -> str:
        if not isinstance(name, str) or not is_pseudonym(name):
            raise ValueError("it is no pseudonym")
        if partition_of(name) >= self._pseudonyms.partitions:
            raise ValueError("its partition is not one of this shop's")
        return name

    def _rename(self, name: Any) -> str:
        if not isinstance(name, str) or not is_pseudonym(name):
            raise ValueError("it is no pseudonym")
        return self._pseudonyms.of_anonymous(f"{NAME}:{name}")

    def _event(self, body: Any) -> Placed | Refused:
        if not isinstance(body, dict):
            return Refused("malformed_json", None, "an event is no JSON object")
        if body.get("applied") is False:
            return Refused("not_applied", None, "it counted in no profile")
        strange = sorted(body.keys() - _KEPT - _SHOWN)
        if strange:
            return Refused(
                "invalid_event", None, f"/{strange[0][:64]}: an event has no such member"
            )
        try:
            record = self._to_record(body)
        except (ValueError, TypeError, msgspec.ValidationError) as error:
            return Refused("invalid_event", None, str(error)[:200])
        if not EARLIEST_IMPORTED_MS <= record.time_ms <= self._latest_ms:
            return Refused("impossible_time", "time", None)
        for purpose, granted in read_statements(record).items():
            self._said.add((spellings(purpose)[0], granted, counted_ms(record) // 1000))
        return self._set_position(record)

    def _to_record(self, body: dict[str, Any]) -> EventRecord:
        user, of, linked = self._user, body.get("of"), body.get("linked")
        anonymous = self._anonymous
        if of is not None:
            user, anonymous = self._name_of(of), True
        kept = {name: value for name, value in body.items() if name in _KEPT}
        items = [
            ItemRecord(**item) if isinstance(item, dict) else item for item in body.get("items", [])
        ]
        made = {
            **kept, "user": user, "anonymous": anonymous,
            "linked": None if linked is None else self._name_of(linked),
            "time_ms": parse_time(body.get("time")),
            "received_ms": parse_time(body.get("received_at")),
            "items": msgspec.to_builtins(items),
        }  # fmt: skip
        return _check_bytes(msgspec.convert(made, EventRecord))

    def _set_position(self, record: EventRecord) -> Placed:
        """Return an event with its place: before everything live, one after the other."""
        self._last = max(self._last + 1, record.received_ms)
        return LogPosition(0, self._last), record

    def _statements(self, consents: Any) -> Iterator[Placed | Refused]:
        """Yield what stands of consent and no event of the export says any more."""
        for purpose, said in (consents if isinstance(consents, dict) else {}).items():
            if not isinstance(said, dict) or said.get("at") is None:
                continue
            try:
                at_ms = parse_time(said["at"])
                if (spellings(purpose)[0], said["granted"], at_ms // 1000) in self._said:
                    continue
                terms = {n: said[n] for n in ("expires_at", "version") if said.get(n) is not None}
                digest = hashlib.sha256(f"{purpose} {said['granted']} {at_ms}".encode()).hexdigest()
                made = {
                    "id": f"{NAME}-{digest[:32]}", "type": "consent_updated", "user": self._user,
                    "anonymous": self._anonymous, "time_ms": at_ms, "received_ms": at_ms,
                    "source": said.get("source", ""), "consent": {purpose: said["granted"]},
                    "properties": {TERMS: {purpose: terms}} if terms else None,
                }  # fmt: skip
                yield self._set_position(_check_bytes(msgspec.convert(made, EventRecord)))
            except (ValueError, KeyError, TypeError, msgspec.ValidationError):
                yield Refused("invalid_event", None, "a consent that stands is none")


def _check_bytes(record: EventRecord) -> EventRecord:
    """Return a record that can be kept; JSON has text and numbers that nothing here ever wrote.

    Raises
    ------
    ValueError, TypeError
        If a text is half a character, a number has over 64 bits or properties are too deep.
    """
    try:
        record.encode()
        orjson.dumps(record.properties)
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return record
