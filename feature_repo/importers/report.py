"""Report of an import: counts, by reason, that add up to the rows it read.

Belongs here: the report and the type of the progress callback. Not here: how a row is judged
(`lines`) or where it goes (`publish`).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what); total 0 means unknown."""

SET_ASIDE: Final = frozenset(
    {"non_merchandise", "no_value", "other_type", "erased", "profiling_denied", "not_applied"}
)
"""Reasons of rows that are right but not behaviour to learn from, of somebody who was erased or
denies profiling, or of an event that counted in no profile; any other is a rejection."""


MENDS: Final = {
    "float_id": "set float_ids in the mapping to whole or keep",
    "not_text": "set encoding in the mapping",
    "unreadable_number": "set decimal and thousands in the mapping",
    "unreadable_time": "set time_unit in the mapping",
    "personal_data": "leave it out of the file, or set PORTRAIT_PERSONAL_DATA=hash",
    "unknown_type": "name the type in types or ignore_types of the mapping",
}
"""What may mend a reason, where the mapping can."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Outcome of one import; ``rows_in == accepted + Σ rejected + Σ set_aside``.

    Attributes
    ----------
    source
        Name of the source.
    rows_in
        Rows of behaviour read (order lines, log lines or NDJSON events).
    accepted
        Rows that are in events now: written, held or already archived.
    rejected, set_aside
        Rows that are in no event, by reason: wrong ones, and right ones that are no behaviour.
    events, events_new
        Events made from the source and not held, and those of them that the archive lacked.
    events_held, rows_held
        Events at or after ``until``, written to the rest file, and rows in them.
    amounts_set_aside
        Events, held ones left out, that count without amounts in a currency of no known rate.
    users, items
        Distinct users and item ids among the events (held ones included).
    catalogue
        Catalogue entries written.
    first, last
        RFC 3339 time of the earliest and the latest event, or None without events.
    rejects_file
        Parquet file of the rows that were not accepted.
    rest_file
        NDJSON file of the events held, or None.
    """

    source: str
    rows_in: int
    accepted: int
    rejected: Mapping[str, int]
    set_aside: Mapping[str, int]
    events: int
    events_new: int
    events_held: int
    rows_held: int
    amounts_set_aside: int
    users: int
    items: int
    catalogue: int
    first: str | None
    last: str | None
    rejects_file: Path
    rest_file: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        body = asdict(self)
        body["rejects_file"] = str(self.rejects_file)
        body["rest_file"] = None if self.rest_file is None else str(self.rest_file)
        return body


def silent(done: int, total: int, what: str) -> None:
    """Report progress to nobody."""
