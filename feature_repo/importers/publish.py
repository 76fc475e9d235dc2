"""Publishing: events to archive parts and rest file, all at the end or not at all.

Everything is written below a staging folder first and renamed into place by `Publisher.finish`,
so that an interrupted import changes nothing. Events already in the archive (same source and
id) are left out, so that importing again adds nothing. Not here: what an event is made of.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from feature_repo.archive import Archive, LogPosition, to_table, write_part
from feature_repo.entity import Tenant
from feature_repo.errors import InvalidSourceError
from feature_repo.events import MAX_EVENT_BYTES, Event, EventRecord, iso, problems, to_record
from feature_repo.importers.assemble import Made

PART_EVENTS: Final = 20_000


@contextmanager
def import_lock(home: Path) -> Iterator[Path]:
    """Hold the right to import into ``home`` and yield an empty staging folder.

    Raises
    ------
    InvalidSourceError
        If another import into the same home is running.
    """
    staging = home / "import.staging"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidSourceError(
                f"another import into {home} is running: wait for it to end"
            ) from None
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed import
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


class Publisher:
    """Takes events, stages them, and publishes them together.

    Parameters
    ----------
    home
        State folder.
    staging
        Empty folder on the same file system as ``home``.
    source
        Value of ``source`` of the events.
    until_ms
        Events at or after this time are held: written to ``rest``, not to the archive.
    rest
        NDJSON file of the events held; needed with ``until_ms``.
    """

    def __init__(
        self, home: Path, staging: Path, source: str, until_ms: int | None, rest: Path | None
    ) -> None:
        self.tenant = Tenant.load(home)
        self.archive = Archive(home / "archive" / "events")
        self.staging = Archive(staging / "events")
        self.source, self.until_ms, self.rest = source, until_ms, rest
        self.events = self.events_new = self.events_held = 0
        self.rows_held = 0
        self.users: set[str] = set()
        self.items: set[str] = set()
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._earlier = self._ids(self.archive)
        self._now = set[str]()
        self._pending = list[tuple[LogPosition, EventRecord]]()
        self._held = list[tuple[int, str, bytes]]()

    def _ids(self, archive: Archive) -> set[str]:
        if archive.empty():
            return set()
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            found = connection.execute(
                "SELECT event_id FROM read_parquet(?) WHERE source = ?",
                [archive.glob(), self.source],
            ).fetchnumpy()
        return set(found["event_id"].tolist())

    def add(self, made: Made) -> str | None:
        """Validate and take one event; return why not, or None.

        Parameters
        ----------
        made
            The event in the outside form, and its source rows.
        """
        body, rows = made
        try:
            event = Event.model_validate(body)
        except ValidationError as error:
            first = problems(error)[0]
            return f"invalid_event{first['pointer']}: {first['detail']}"
        assert event.id is not None
        assert event.time is not None
        if event.id in self._now:
            return "duplicate"
        self._now.add(event.id)
        record = to_record(event, self.tenant, received_ms=event.time)
        self._count(record)
        if self.until_ms is not None and event.time >= self.until_ms:
            self._held.append((event.time, event.id, _outside(event)))
            self.events_held += 1
            self.rows_held += len(rows)
            return None
        self.events += 1
        if event.id not in self._earlier:
            self.events_new += 1
            self._pending.append((LogPosition.imported(event.time), record))
            if len(self._pending) >= PART_EVENTS:
                self._flush()
        return None

    def _count(self, record: EventRecord) -> None:
        self.users.add(record.user)
        self.items.update(item.item_id for item in record.items)
        moment = record.time_ms
        self.first_ms = moment if self.first_ms is None else min(self.first_ms, moment)
        self.last_ms = moment if self.last_ms is None else max(self.last_ms, moment)

    def _flush(self) -> None:
        if not self._pending:
            return
        self._pending.sort(key=lambda entry: (entry[0].ms, entry[0].seq, entry[1].id))
        digest = hashlib.sha256("\n".join(r.id for _, r in self._pending).encode()).hexdigest()
        day = iso(self._pending[0][1].time_ms)[:10]
        self.staging.append(f"import-{self.source}-{day}-{digest[:16]}", self._pending)
        self._pending.clear()

    def finish(self, files: Sequence[tuple[Path, Path]]) -> None:
        """Publish: ``files`` (staged, final), the rest file, then the archive parts.

        Parameters
        ----------
        files
            Further staged files and where they belong.
        """
        self._flush()
        staged = list(files)
        if self.rest is not None:
            path = self.staging.root / "rest.ndjson"
            self._held.sort()
            with path.open("wb") as file:
                file.writelines(line + b"\n" for _, _, line in self._held)
                file.flush()
                os.fsync(file.fileno())
            staged.append((path, self.rest))
        staged += [(part, self.archive.root / part.name) for part in self.staging.parts()]
        for source, target in staged:
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(source, target)


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # another file system: copy beside the target, then rename
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copyfile(source, beside)
        beside.replace(target)


def _outside(event: Event) -> bytes:
    """Return an event as a line that the HTTP API takes, within its size limit."""
    body: dict[str, Any] = event.model_dump(exclude_none=True, exclude_defaults=True)
    body["time"] = iso(body["time"])
    line = orjson.dumps(body)
    if len(line) > MAX_EVENT_BYTES:  # the service fills these in again from the catalogue
        for item in body["items"]:
            item.pop("category", None)
            item.pop("brand", None)
        line = orjson.dumps(body)
    return line


def write_table(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Write dictionaries as one Parquet part."""
    write_part(path, pa.Table.from_pylist(list(rows), schema=schema))


class Rejects:
    """The rows that were not accepted, written as they were read, with the reason.

    Parameters
    ----------
    path
        Parquet file to write; columns ``source_row``, ``reason``, ``kind``, ``detail`` and the
        source's own (one that has such a name already gets ``original_`` before it).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejects: pd.DataFrame, raw: pd.DataFrame) -> None:
        """Write rejects of one chunk.

        Parameters
        ----------
        rejects
            Columns ``source_row``, ``reason``, ``kind``, ``detail``.
        raw
            The chunk's rows as read, indexed by source row.
        """
        clash = {c: f"original_{c}" for c in raw.columns if c in rejects.columns}
        originals = raw.loc[rejects["source_row"]].rename(columns=clash).reset_index(drop=True)
        both = pd.concat([rejects.reset_index(drop=True), originals], axis=1)
        both.columns = both.columns.map(str)
        if self._writer is None:
            head = pa.schema(
                [("source_row", pa.int64()), ("reason", pa.string()),
                 ("kind", pa.string()), ("detail", pa.string())]
            )  # fmt: skip
            tail = pa.Schema.from_pandas(both.iloc[:, 4:], preserve_index=False).remove_metadata()
            schema = pa.schema(
                [*head, *(f if f.type != pa.null() else f.with_type(pa.string()) for f in tail)]
            )
            self._writer = pq.ParquetWriter(self.path, schema, compression="zstd")
        table = pa.Table.from_pandas(
            both, schema=self._writer.schema, preserve_index=False
        ).replace_schema_metadata()
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
