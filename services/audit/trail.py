"""The trail's files: JSON lines below ``PORTRAIT_HOME/audit``, a chain; see `chain`.

Belongs here: appending, reading, checking and dropping lines. Where they come from is
`writer`'s.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from services.audit.chain import ChainEnd, ChainStart, open_line, open_waiting

TAIL_BYTES: Final = 8 * 1024 * 1024
"""What is read of the last file to go on: more than the writer writes at once."""
_FAULTS: Final = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class TrailCheck:
    """What a check found: how many lines are whole, and the first that is not."""

    lines: int
    broken: str | None


@dataclass(frozen=True, slots=True)
class TrailTail:
    """Where a writer goes on: the end of the chain, ids that are written, and what is not ours."""

    end: ChainEnd
    written: set[str]
    strange: str | None = None


class Trail:
    """The files of one state folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "audit"

    def files(self) -> list[Path]:
        """Return the files, one a day, oldest first."""
        return sorted(self.folder.glob("????-??-??.jsonl"))

    def sizes(self) -> dict[str, int]:
        """Return how many bytes each file has."""
        return {path.name: path.stat().st_size for path in self.files()}

    def find_tail(self, known: ChainEnd | None, waiting: Mapping[str, dict[str, Any]]) -> TrailTail:
        """Return where to go on: at the end that the store knows; half a line is cut off.

        Lines behind that end are gone on from if they still wait in the store: a kill left them.
        What else stands there stays, and is not gone on from.
        """
        lines, whole = self._read_tail()
        start = (known and known.start) or self._start_or_none() or ChainStart()
        opened = [_open(line) for line in lines]
        if known is None:
            digest = opened[-1].get("digest", start.before) if opened else start.before
            written = {each["id"] for each in opened if "id" in each}
            return TrailTail(ChainEnd(digest, self._count(start), start), written)
        digests = [each.get("digest") for each in opened]
        if known.digest in digests:
            behind = digests.index(known.digest) + 1
        elif whole and known.digest == (opened[0].get("before") if opened else start.before):
            behind = 0  # a day's first lines, or none yet
        else:
            missing = "the last line that the store knows is missing"
            end = ChainEnd(known.digest, known.lines or self._count(start), start)
            return TrailTail(end, set(), missing)
        digest, last = known.digest, behind
        strange: str | None = None
        for line in lines[behind:]:
            try:
                digest = open_waiting(line, digest, waiting)
            except _FAULTS:
                strange = "lines were added that the store does not know"
                break
            last += 1
        written = {each["id"] for each in opened[:last] if "id" in each}
        count = self._count(start) if known.lines is None else known.lines + last - behind
        return TrailTail(ChainEnd(digest, count, start), written, strange)

    def _read_tail(self) -> tuple[list[bytes], bool]:
        """Return the last whole lines, and whether they are all of the last file."""
        files = self.files()
        if not files:
            return [], True
        with files[-1].open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(start + whole)
        lines = data[:whole].splitlines()[1 if start else 0 :]
        if (
            not lines and not start
        ):  # a day's first line was cut off: what stood before it is the end
            files[-1].unlink()
            return self._read_tail()
        return lines, start == 0

    def _count(self, start: ChainStart) -> int:
        files = [path for path in self.files() if path.stem >= start.first]
        return start.gone + sum(_count_lines(path) for path in files)

    def append(self, lines: Sequence[bytes], day: str) -> None:
        """Write lines at the end, in the file of a day, or of the last one if that is later."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        days = [day, *(path.stem for path in self.files()[-1:])]
        path = self.folder / f"{max(days)}.jsonl"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def check(
        self,
        known: ChainEnd | None,
        waiting: Mapping[str, dict[str, Any]],
        sizes: Mapping[str, int],
    ) -> TrailCheck:
        """Follow the chain from its beginning.

        Parameters
        ----------
        known
            What the store keeps of the chain; None if it is not known.
        waiting
            Entries that wait in the store.
        sizes
            `sizes` as they were before the store was asked: what came since is left out.
        """
        try:
            start = self.read_start()
        except ValueError as error:
            return TrailCheck(0, f"anchor.json: {error}")
        start = (known and known.start) or start
        digest, count = start.before, 0
        reached = known is None or known.digest == digest
        for path in self.files():
            if path.stem < start.first:
                continue
            for number, (after, line) in enumerate(read_lines(path), start=1):
                beyond = known is not None and reached
                if beyond and after > sizes.get(path.name, 0):
                    return TrailCheck(count, None)
                try:
                    digest = (
                        open_waiting(line, digest, waiting) if beyond else open_line(line, digest)
                    )
                except _FAULTS as error:
                    told = error.args[0] if type(error) is ValueError else "it is no entry"
                    return TrailCheck(count, f"{path.name}, line {number}: {told}")
                count += 1
                reached = reached or (known is not None and digest == known.digest)
        return TrailCheck(count, None if reached else "the end: lines that were there are missing")

    def find_start(self, day: str, start: ChainStart) -> ChainStart:
        """Return where the chain begins without the files of the days before ``day``."""
        old = [path for path in self.files()[:-1] if start.first <= path.stem < day]
        if not old:
            return start
        digests = [_open(line).get("digest") for _, line in read_lines(old[-1])]
        before = next((each for each in reversed(digests) if each), start.before)
        first = self.files()[self.files().index(old[-1]) + 1].stem
        return ChainStart(first, before, start.gone + sum(_count_lines(path) for path in old))

    def drop_before(self, start: ChainStart) -> None:
        """Remove the files of the days before the chain's start, which is noted first."""
        old = [path for path in self.files() if path.stem < start.first]
        if not old:
            return
        anchor = self.folder / "anchor.json"
        made = anchor.with_suffix(".new")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(start.encode())
            file.flush()
            os.fsync(file.fileno())
        made.replace(anchor)
        for path in old:
            path.unlink()

    def read_start(self) -> ChainStart:
        """Return where the chain begins, as ``anchor.json`` says.

        Raises
        ------
        ValueError
            Saying what is wrong in it.
        """
        try:
            return ChainStart.decode((self.folder / "anchor.json").read_bytes())
        except FileNotFoundError:
            return ChainStart()

    def _start_or_none(self) -> ChainStart | None:
        try:
            return self.read_start()
        except ValueError:
            return None


def _open(line: bytes) -> dict[str, Any]:
    """Return the fields of a line; none if somebody made it no entry."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return fields if type(fields) is dict else {}


def _count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines(path))


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a file from a byte on, each with where the next one begins."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield start, line[:-1]


def starts_line(path: Path, start: int) -> bool:
    """Say whether a line begins at a byte of a file, or would."""
    with path.open("rb") as file:
        file.seek(max(0, start - 1))
        return start == 0 or file.read(1) in {b"\n", b""}
