"""The archive's disk: parts that appear whole or not at all, on which every process looks.

The archive's own code runs (`archive.event_archive.Archive.extend`); what it calls to read and
write Parquet is replaced by a dictionary. Between the steps of a write its process can die.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.archive.event_archive import Archive, LogPosition, Span
from feature_repo.errors import PortraitError
from feature_repo.events.schema import EventRecord
from simulator.weather import PART
from simulator.world import World

Entries = Sequence[tuple[LogPosition, EventRecord]]


@dataclass(frozen=True)
class SimPath:
    """A part's place."""

    disk: "Disk"
    name: str

    def exists(self) -> bool:
        return self.name in self.disk.tables


class Disk:
    """Parts by file name; outlives every process.

    Parameters
    ----------
    world
        Gives way while a part is written, before and after it appears.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._adding = 0
        self.tables: dict[str, Entries] = {}
        self._sets = [self.tables]  # what a reader found stays as it was
        self.unreadable = 0.0

    def __truediv__(self, name: str) -> SimPath:
        return SimPath(self, name)

    @contextmanager
    def adding(self) -> Iterator["Disk"]:
        """Do what `PartSet.adding` does: no parts are exchanged meanwhile."""
        self._adding += 1
        try:
            yield self
        finally:
            self._adding -= 1

    def write_part(self, path: SimPath, table: Entries, *, replace: bool = True) -> bool:
        """Do what `feature_repo.archive.part_set.write_part` does."""
        self._world.pause(sending=[PART])  # the temporary file is being written
        if path.exists() and not replace:
            return False
        self.tables[path.name] = table
        self._world.note("part", f"{path.name}: {len(table)} events")
        self._world.pause(sending=[PART])  # it has its name; its writer does not know yet
        return True

    def held(self, folder: "Disk", span: Span) -> set[tuple[int, int, str]]:
        """Do what `feature_repo.archive.event_archive._held` does."""
        return {
            (position.ms, position.seq, record.id)
            for name, table in self.tables.items()
            if (other := Span.of(Path(name))) and other.partition == span.partition
            for position, record in table
            if span.after < position <= span.until
        }

    def compact(self, archive: Any, archived: Mapping[int, LogPosition]) -> int:
        """Merge what `archive.compaction.compact` may merge, all of it, in one exchange."""
        for partition, until in archived.items():
            names = [
                name
                for name in self.tables
                if (span := Span.of(Path(name)))
                and span.partition == partition
                and span.until <= until
            ]
            if len(names) > 1:
                merged = [entry for name in names for entry in self.tables[name]]
                spans = [span for name in names if (span := Span.of(Path(name)))]
                whole = Span(partition, min(s.after for s in spans), max(s.until for s in spans))
                self._world.pause()  # the merged part is being written
                self._exchange(names, whole, merged)
        return 0

    def _exchange(self, names: Collection[str], whole: Span, merged: Entries) -> None:
        if self._adding or not self.tables.keys() >= set(names):
            return  # others are adding a part, or were faster
        name = next(n for n in whole.file_names() if n in names or n not in self.tables)
        kept = {old: table for old, table in self.tables.items() if old not in names}
        self.tables = {**kept, name: merged}
        self._sets.append(self.tables)
        self._world.note("compaction", f"{len(names)} parts into {name}")

    def events(self) -> list[tuple[LogPosition, EventRecord]]:
        """Return all events of all parts."""
        return [entry for name in sorted(self.tables) for entry in self.tables[name]]

    def parts(self) -> list[Path]:
        """Do what `feature_repo.archive.part_set.PartSet.parts` does."""
        return [Path(str(len(self._sets) - 1), name) for name in sorted(self.tables)]

    def rows(self, parts: Sequence[Path], users: Sequence[str]) -> list[tuple[Any, ...]]:
        """Do what `services.history.users._rows` does."""
        self._world.pause()
        if self._world.rng.random() < self.unreadable:
            self._world.note("unreadable", "a part of the archive")
            raise PortraitError("the archive cannot be read")
        return [
            (position.ms, position.seq, record.id, record.encode())
            for part in parts
            for position, record in self._sets[int(part.parent.name)][part.name]
            if record.user in users
        ]

    def named(self, archive: Archive) -> list[tuple[Any, ...]]:
        """Do what `services.history.merged_history._read_archive` does."""
        return [
            (position, record.user, record.anonymous, record.linked, record.anonymous)
            for position, record in self.events()
            if record.anonymous or record.linked is not None
        ]

    def archive(self) -> Archive:
        """Return the real archive over this disk."""
        made = Archive.__new__(Archive)
        made.root = Path("/simulated/archive/events")
        made.part_set = self  # type: ignore[assignment]
        return made
