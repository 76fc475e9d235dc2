"""The trail's chain: lines that name the digest before them, and where it begins and ends.

A line ends with the SHA-256 of what stands before that in it. Who can write the files can make
such lines too: what the store keeps of the chain (`ChainEnd`) tells theirs from the writer's.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson

BEGINNING: Final = "0" * 64
"""The digest before the first line of all."""
_END: Final = re.compile(rb',"digest":"([0-9a-f]{64})"\}')
_END_LENGTH: Final = 77
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DAY: Final = re.compile(r"(\d{4}-\d\d-\d\d)?")


@dataclass(frozen=True, slots=True)
class ChainStart:
    """Where the chain begins: its first day, the digest before, and how many lines are gone."""

    first: str = ""
    before: str = BEGINNING
    gone: int = 0

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the start of a stored body.

        Raises
        ------
        ValueError
            Saying what it lacks.
        """
        fields = orjson.loads(body)
        if type(fields) is not dict:
            raise ValueError("it is no JSON object")
        for name, form in (("first", _DAY), ("before", _DIGEST)):
            value = fields.get(name)
            if not isinstance(value, str) or not form.fullmatch(value):
                raise ValueError(f"its {name!r} is missing or wrong")
        gone = fields.get("gone", 0)  # an earlier version kept none
        if type(gone) is not int or gone < 0:
            raise ValueError("its 'gone' is wrong")
        return cls(fields["first"], fields["before"], gone)

    def encode(self) -> bytes:
        """Return the body to be stored."""
        return orjson.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """What the store keeps of the chain: its last digest, how many lines it ever had, its start.

    An earlier version kept the digest alone.
    """

    digest: str
    lines: int | None = None
    start: ChainStart | None = None

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the end of a stored body."""
        if not body.startswith(b"{"):
            return cls(body.decode())
        fields = orjson.loads(body)
        return cls(fields["digest"], fields["lines"], ChainStart(**fields["start"]))

    def encode(self) -> bytes:
        """Return the body to be stored."""
        return orjson.dumps(asdict(self))


def read_waiting(groups: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of groups of the store's stream, by id, in their order."""
    return {
        (name_of := f"{name.decode()}.{number}"): {**entry, "id": name_of}
        for name, fields in groups
        for number, entry in enumerate(orjson.loads(fields[b"entries"]))
    }


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


def open_waiting(line: bytes, before: str, waiting: Mapping[str, dict[str, Any]]) -> str:
    """Return the digest of a line behind the end that the store knows: a kill may leave some.

    Raises
    ------
    ValueError
        Also if it is none of the entries that still wait in the store.
    """
    digest = open_line(line, before)
    entry = orjson.loads(line)
    del entry["before"], entry["digest"]
    if entry != waiting.get(entry.get("id")):
        raise ValueError("the store does not know it: it was added")
    return digest
