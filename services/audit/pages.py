"""Pages of the audit trail: the entries that a question asks for, a bounded piece at a time."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import orjson

from feature_repo.errors import InvalidQuestionError
from services.audit import schemas as said
from services.audit.trail import Trail, read_lines, starts_line

MOST_LINES: Final = 50_000
"""Lines that are looked at for one page."""
_WRONG: Final = "pass the next_cursor of the page before"
_CURSOR: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{1,15})")


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    """Which entries are question for; times are as the entries have them, the end is left out."""

    since: str | None = None
    until: str | None = None
    key: str | None = None
    limit: int = 100

    def fits(self, entry: said.AuditEntry) -> bool:
        """Say whether an entry is among them."""
        return (
            (self.key is None or entry["key"] == self.key)
            and (self.since is None or entry["at"] >= self.since)
            and (self.until is None or entry["at"] < self.until)
        )


def read_page(trail: Trail, question: AuditQuestion, cursor: str | None) -> said.AuditPage:
    """Return the entries from a cursor on, and the cursor of what follows, if anything may.

    Raises
    ------
    InvalidQuestionError
        If the cursor is none that a page gave.
    """
    day, start = _read_cursor(cursor) if cursor is not None else ((question.since or "")[:10], 0)
    last = _day_after(question.until)
    found, looked = list[said.AuditEntry](), 0
    for path in trail.files():
        if path.stem < day or path.stem > last:
            continue
        begin = start if path.stem == day else 0
        if not starts_line(path, begin):
            raise InvalidQuestionError("cursor", _WRONG)
        for offset, line in read_lines(path, begin):
            looked += 1
            entry = _read_entry(line)
            if entry is not None and question.fits(entry):
                found.append(entry)
            if len(found) == question.limit or looked == MOST_LINES:
                return {"entries": found, "next_cursor": f"{path.stem}.{offset}"}
    return {"entries": found, "next_cursor": None}


def _read_entry(line: bytes) -> said.AuditEntry | None:
    """Return the entry of a line; None if somebody made it none, as a check of the chain says."""
    try:
        entry = orjson.loads(line)
        del entry["before"], entry["digest"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return cast("said.AuditEntry", entry)


def _read_cursor(cursor: str) -> tuple[str, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidQuestionError("cursor", _WRONG)
    return found.group(1), int(found.group(2))


def _day_after(until: str | None) -> str:
    """Return the last day whose file may hold an entry before ``until``: it is written later."""
    if until is None:
        return "9999-12-31"
    day = datetime.fromisoformat(until[:10]).replace(tzinfo=UTC)
    return f"{day + timedelta(days=1):%Y-%m-%d}"
