"""The archive's disk: parts that appear whole or not at all, on which every process looks.

The archive's own code runs (`feature_repo.archive.Archive.extend`); what it calls to read and
write Parquet is replaced by a dictionary. Between the steps of a write its process can die.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.archive import Archive, LogPosition, Span
from feature_repo.events import EventRecord
from simulator.weather import PART
from simulator.world import World

Entries = Sequence[tuple[LogPosition, EventRecord]]


@dataclass(frozen=True)
class SimPath:
    """A part's place."""

    disk: "Disk"
    name: str

    def exists(self) -> bool:
        return self.name in self.disk.parts


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
        self.parts: dict[str, Entries] = {}

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
        """Do what `feature_repo.part_set.write_part` does."""
        self._world.pause(sending=[PART])  # the temporary file is being written
        if path.exists() and not replace:
            return False
        self.parts[path.name] = table
        self._world.note("part", f"{path.name}: {len(table)} events")
        self._world.pause(sending=[PART])  # it has its name; its writer does not know yet
        return True

    def held(self, folder: "Disk", span: Span) -> set[tuple[int, int, str]]:
        """Do what `feature_repo.archive._held` does."""
        return {
            (position.ms, position.seq, record.id)
            for name, table in self.parts.items()
            if (other := Span.of(Path(name))) and other.partition == span.partition
            for position, record in table
            if span.after < position <= span.until
        }

    def compact(self, archive: Any, archived: Mapping[int, LogPosition]) -> int:
        """Merge what `feature_repo.compaction.compact` may merge, all of it, in one exchange."""
        for partition, until in archived.items():
            names = [
                name
                for name in self.parts
                if (span := Span.of(Path(name)))
                and span.partition == partition
                and span.until <= until
            ]
            if len(names) > 1:
                merged = [entry for name in names for entry in self.parts[name]]
                spans = [span for name in names if (span := Span.of(Path(name)))]
                whole = Span(partition, min(s.after for s in spans), max(s.until for s in spans))
                self._world.pause()  # the merged part is being written
                self._exchange(names, whole, merged)
        return 0

    def _exchange(self, names: Collection[str], whole: Span, merged: Entries) -> None:
        if self._adding or not self.parts.keys() >= set(names):
            return  # others are adding a part, or were faster
        name = next(n for n in whole.file_names() if n in names or n not in self.parts)
        for old in names:
            del self.parts[old]
        self.parts[name] = merged
        self._world.note("compaction", f"{len(names)} parts into {name}")

    def events(self) -> list[tuple[LogPosition, EventRecord]]:
        """Return all events of all parts."""
        return [entry for name in sorted(self.parts) for entry in self.parts[name]]

    def archive(self) -> Archive:
        """Return the real archive over this disk."""
        made = Archive.__new__(Archive)
        made.root = Path("/simulated/archive/events")
        made.part_set = self  # type: ignore[assignment]
        return made
