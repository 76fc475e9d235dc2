"""Receipts: stream ids as positions in the log, and the answer to an append.

Pure values, no input or output. Writing the log is `append`'s.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from feature_repo.errors import InvalidInputError

Position = tuple[int, int]
"""A stream id as a pair that compares like the id."""


def stream_id(text: str | bytes) -> Position:
    """Return a stream id as a pair that compares like the id.

    Examples
    --------
    >>> stream_id("1700000000000-3") < stream_id(b"1700000000000-12")
    True
    """
    ms, seq = (text.decode() if isinstance(text, bytes) else text).split("-")
    return int(ms), int(seq)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A consistency token: for each partition named, the last entry a reader must see.

    Examples
    --------
    >>> Receipt.parse("p012-1732391111111-0").positions
    {12: (1732391111111, 0)}
    >>> str(Receipt({3: (5, 0), 1: (7, 1)}))
    'p001-7-1,p003-5-0'
    """

    positions: dict[int, Position]

    @classmethod
    def parse(cls, text: str) -> "Receipt":
        """Read the text form.

        Raises
        ------
        InvalidInputError
            If ``text`` is no receipt.
        """
        positions = dict[int, Position]()
        for part in text.split(","):
            fields = part.split("-")
            if (
                len(fields) != 3
                or len(part) > 48
                or fields[0][:1] != "p"
                or not all(f.isascii() and f.isdigit() for f in (fields[0][1:], *fields[1:]))
            ):
                raise InvalidInputError(
                    f"{text[:60]!r} is not a receipt: pass the one that an accepted event returned"
                )
            positions[int(fields[0][1:])] = (int(fields[1]), int(fields[2]))
        return cls(positions)

    def __str__(self) -> str:
        return ",".join(f"p{p:03d}-{m}-{s}" for p, (m, s) in sorted(self.positions.items()))


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of an event that was to be appended.

    Attributes
    ----------
    partition
        Of its user.
    position
        Where it stands in the log; ``(0, 0)`` for an erased user's event, which stands nowhere.
    status
        ``accepted``; ``duplicate`` if it stood there before; ``erased`` if the user, or the
        anonymous id linked to it, has been erased.
    kept
        False if its user denies profiling: nothing of it is kept but what it says about consent,
        and ``position`` may be that of the entry before it.
    """

    partition: int
    position: Position
    status: Literal["accepted", "duplicate", "erased"]
    kept: bool = True

    @property
    def duplicate(self) -> bool:
        """Whether the event stood in the log before."""
        return self.status == "duplicate"

    @property
    def receipt(self) -> Receipt:
        """Receipt of this one event."""
        return Receipt({self.partition: self.position})


def merge(appended: Iterable[Appended]) -> Receipt:
    """Return one receipt for several events: the last entry of each partition."""
    positions = dict[int, Position]()
    for one in appended:
        positions[one.partition] = max(one.position, positions.get(one.partition, (0, 0)))
    return Receipt(positions)
