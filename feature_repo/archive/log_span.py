"""Positions in a partition's log, and the stretches of it that archive parts are named by."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """Where an event stands in its partition's log (a stream id); orders the fold."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> "LogPosition":
        """Read a stream id ``ms-seq``."""
        ms, seq = (text.decode() if isinstance(text, bytes) else text).split("-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def imported(cls, time_ms: int) -> "LogPosition":
        """Return the position of a history event: before everything live, by event time."""
        return cls(0, time_ms)


_NAME: Final = re.compile(r"p(\d{3})-(\d+-\d+)-(\d+-\d+)(?:\.\d+)?\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The stretch of one partition's log that a part holds entries of.

    Attributes
    ----------
    after, until
        ``after < position <= until`` holds for every entry.

    Examples
    --------
    >>> span = Span(3, LogPosition(5, 0), LogPosition(9, 4))
    >>> str(span)
    'p003-5-0-9-4'
    >>> Span.of(Path("p003-5-0-9-4.parquet")) == Span.of(Path("p003-5-0-9-4.1.parquet")) == span
    True
    """

    partition: int
    after: LogPosition
    until: LogPosition

    @classmethod
    def of(cls, part: Path) -> "Span | None":
        """Return the span that a part's name tells; None for imported history."""
        match = _NAME.fullmatch(part.name)
        if match is None:
            return None
        return cls(int(match[1]), LogPosition.parse(match[2]), LogPosition.parse(match[3]))

    def __str__(self) -> str:
        return f"p{self.partition:03d}-{self.after}-{self.until}"

    def file_names(self) -> Iterator[str]:
        """Yield the names that parts of this span may have; nearly always the first is free."""
        yield f"{self}.parquet"
        for number in count(1):
            yield f"{self}.{number}.parquet"
