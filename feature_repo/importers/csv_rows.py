"""CSV as rows: every record has as many cells as the header, or is refused by itself.

Belongs here: quoting, line ends, the header. Not here: what the cells mean.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from feature_repo.errors import InvalidSourceError
from feature_repo.importers.files import open_text
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.rows import FileRow, Refused

_MAY_HAVE_LINES: Final = frozenset(
    {"title", "category", "brand", "variant", "query", "url", "device", "channel", "coupon"}
)
"""Fields whose text may be of several lines; any other is an id, a word, a time or a number."""
_BREAK: Final = re.compile(r"[\r\n]")
_SWALLOWED: Final = "a quotation mark makes a cell of several lines"


def read_csv(path: Path, mapping: Mapping, names: Sequence[str], *, raw: bool) -> Iterator[FileRow]:
    """Yield the rows of a CSV file.

    Parameters
    ----------
    path
        File.
    mapping
        Its delimiter, header and encoding.
    names
        Columns wanted.
    raw
        Whether each row comes whole as well.
    """
    header = mapping.header
    one_line = {c for f, c in mapping.columns.to_columns().items() if f not in _MAY_HAVE_LINES}

    def swallows(record: list[str]) -> Refused | None:
        if header is None:
            return None
        if len(record) != len(header):
            return Refused("malformed_csv", None, _SWALLOWED)
        for name, cell in zip(header, record, strict=True):
            if name in one_line and _BREAK.search(cell.strip()):
                return Refused("malformed_csv", name, _SWALLOWED)
        return None

    with open_text(path, mapping.encoding) as text:
        records = _records(text, mapping.delimiter, swallows)
        if header is None:
            first = next(records, None)
            if first is None:
                raise InvalidSourceError(f"{path} is empty: it needs at least a header line")
            if isinstance(first, FileRow):
                why = None if first.refused is None else first.refused.detail
                raise InvalidSourceError(f"{path} has a header that cannot be read: {why}")
            header = first
        indices = [index_of(name, header, path, mapping) for name in names]
        for record in records:
            if isinstance(record, FileRow):
                yield record if raw else record._replace(raw=None)
                continue
            kept = json.dumps(dict(_name_columns(header, record))) if raw else None
            if len(record) != len(header):
                yield FileRow((), _wrong_length(len(record), len(header)), kept)
            else:
                yield FileRow(tuple([record[index] for index in indices]), None, kept)


def index_of(name: str, header: Sequence[str], path: Path, mapping: Mapping) -> int:
    """Return where a column stands.

    Raises
    ------
    InvalidSourceError
        If the file has it not at all or twice.
    """
    if header.count(name) == 1:
        return header.index(name)
    field = next(f for f, c in mapping.columns.to_columns().items() if c == name)
    if name in header:
        raise InvalidSourceError(
            f"{path.name} has the column {name!r} twice (mapped to {field}): rename one"
        )
    raise InvalidSourceError(
        f"{path.name} lacks the column {name!r} (mapped to {field}); "
        f"it has: {', '.join(map(str, header))[:400]}"
    )


def _wrong_length(found: int, wanted: int) -> Refused:
    reason = "too_many_fields" if found > wanted else "too_few_fields"
    return Refused(reason, None, f"{found} fields under a header of {wanted}")


def _name_columns(
    header: Sequence[str], record: Sequence[str]
) -> Iterator[tuple[str, str | list[str]]]:
    yield from zip(header, record, strict=False)
    if len(record) > len(header):
        yield "…", list(record[len(header) :])


def _records(
    text: Iterable[str], delimiter: str, swallows: Callable[[list[str]], Refused | None]
) -> Iterator[list[str] | FileRow]:
    """Yield records; one that is no CSV is refused with its first line, the others are read anew.

    So a quotation mark too many costs one line, not the lines up to the next one or to the end.
    ``swallows`` says of a record of several lines why it cannot be one.
    """
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        try:
            record = next(reader, None)
            refused = swallows(record) if record and len(lines.taken) > 1 else None
        except csv.Error as error:
            if not lines.taken:
                return
            refused = Refused("malformed_csv", None, str(error).split(" - ")[0])
        if refused is not None:
            lines.give_back()
            yield FileRow((), refused, json.dumps(lines.taken[0]))
            continue
        if record is None:
            return
        if record:  # an empty line is no row
            yield record


class _Lines:
    """Lines that remember what was taken since the last record, and take it back."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self._again = list[str]()
        self.taken = list[str]()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.taken.append(line)
        return line

    def give_back(self) -> None:
        """Take back all lines since the last record but the first."""
        self._again += reversed(self.taken[1:])
