"""The trail's files: JSON lines below ``PORTRAIT_HOME/audit``, each with the digest before it.

A line ends with the SHA-256 of what stands before that in it, and names the digest of the line
before. Belongs here: appending, reading, checking and dropping lines. Where they come from is
`writer`'s.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

BEGINNING: Final = "0" * 64
"""The digest before the first line of all."""
TAIL_BYTES: Final = 8 * 1024 * 1024
"""What is read of the last file to go on: more than the writer writes at once."""
_END: Final = re.compile(rb',"digest":"([0-9a-f]{64})"\}')
_END_LENGTH: Final = 77


@dataclass(frozen=True, slots=True)
class TrailCheck:
    """What a check found: how many lines are whole, and the first that is not."""

    lines: int
    broken: str | None


def seal(fields: dict[str, Any], before: str) -> tuple[bytes, str]:
    """Return the line of an entry behind the line with the digest ``before``, and its digest.

    Examples
    --------
    >>> line, digest = seal({"status": 200}, BEGINNING)
    >>> open_line(line, BEGINNING) == digest
    True
    """
    body = orjson.dumps({**fields, "before": before})
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + f',"digest":"{digest}"}}'.encode(), digest


def open_line(line: bytes, before: str) -> str:
    """Return the digest of a whole line behind the digest ``before``.

    Raises
    ------
    ValueError
        Saying why the line does not stand there.
    """
    end = _END.fullmatch(line[-_END_LENGTH:])
    if end is None:
        raise ValueError("it has no digest")
    body, digest = line[:-_END_LENGTH] + b"}", end.group(1).decode()
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError("it was changed")
    if orjson.loads(body)["before"] != before:
        raise ValueError("it does not follow the line before it")
    return digest


class Trail:
    """The files of one state folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "audit"

    def files(self) -> list[Path]:
        """Return the files, one a day, oldest first."""
        return sorted(self.folder.glob("????-??-??.jsonl"))

    def find_end(self) -> tuple[str, set[str]]:
        """Return the last digest, and the ids of the last lines; half a line is cut off."""
        files = self.files()
        if not files:
            return self._find_beginning()[1], set()
        with files[-1].open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(start + whole)
        lines = data[:whole].splitlines()[1 if start else 0 :]
        if not lines:  # a day's first line was cut off: what stood before it is the end
            files[-1].unlink()
            return self.find_end()
        found = [orjson.loads(line) for line in lines]
        return found[-1]["digest"], {each["id"] for each in found}

    def append(self, lines: Sequence[bytes], day: str) -> None:
        """Write lines at the end, in the file of a day, or of the last one if that is later."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        days = [day, *(path.stem for path in self.files()[-1:])]
        path = self.folder / f"{max(days)}.jsonl"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def check(self, head: str | None) -> TrailCheck:
        """Follow the chain from its beginning.

        Parameters
        ----------
        head
            A digest that the chain has reached; None if none is known.
        """
        first, digest = self._find_beginning()
        count, reached = 0, head is None or head == digest
        for path in self.files():
            if path.stem < first:
                continue
            for number, (_, line) in enumerate(read_lines(path), start=1):
                try:
                    digest = open_line(line, digest)
                except (ValueError, KeyError, TypeError) as error:
                    told = error.args[0] if type(error) is ValueError else "it is no entry"
                    return TrailCheck(count, f"{path.name}, line {number}: {told}")
                count += 1
                reached = reached or digest == head
        return TrailCheck(count, None if reached else "the end: lines that were there are missing")

    def drop_before(self, day: str) -> None:
        """Remove the files of the days before ``day``; the chain then begins at what is left."""
        old = [path for path in self.files()[:-1] if path.stem < day]
        if not old:
            return
        kept = self.files()[len(old)]
        digest = orjson.loads([line for _, line in read_lines(old[-1])][-1])["digest"]
        anchor = self.folder / "anchor.json"
        made = anchor.with_suffix(".new")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(orjson.dumps({"first": kept.stem, "before": digest}))
            file.flush()
            os.fsync(file.fileno())
        made.replace(anchor)
        for path in old:
            path.unlink()

    def _find_beginning(self) -> tuple[str, str]:
        """Return the first day of the chain and the digest before it."""
        try:
            anchor = orjson.loads((self.folder / "anchor.json").read_bytes())
        except FileNotFoundError:
            return "", BEGINNING
        return anchor["first"], anchor["before"]


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
