"""CSV as rows: every record has as many cells as the header, or is refused by itself.

Belongs here: quoting, line ends, the header. Not here: what the cells mean.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from feature_repo.errors import InvalidSourceError
from feature_repo.importers.files import open_text
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.rows import Refused, Row


def read_csv(path: Path, mapping: Mapping, names: Sequence[str], *, raw: bool) -> Iterator[Row]:
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
    with open_text(path, mapping.encoding) as text:
        records = _records(text, mapping.delimiter)
        header = mapping.header
        if header is None:
            first = next(records, None)
            if first is None:
                raise InvalidSourceError(f"{path} is empty: it needs at least a header line")
            if isinstance(first, Row):
                why = None if first.refused is None else first.refused.detail
                raise InvalidSourceError(f"{path} has a header that cannot be read: {why}")
            header = first
        places = [place_of(name, header, path, mapping) for name in names]
        for record in records:
            if isinstance(record, Row):
                yield record if raw else record._replace(raw=None)
                continue
            kept = json.dumps(dict(_named(header, record))) if raw else None
            if len(record) != len(header):
                yield Row((), _wrong_length(len(record), len(header)), kept)
            else:
                yield Row(tuple([record[place] for place in places]), None, kept)


def place_of(name: str, header: Sequence[str], path: Path, mapping: Mapping) -> int:
    """Return where a column stands.

    Raises
    ------
    InvalidSourceError
        If the file has it not at all or twice.
    """
    if header.count(name) == 1:
        return header.index(name)
    field = next(f for f, c in mapping.columns.named().items() if c == name)
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


def _named(header: Sequence[str], record: Sequence[str]) -> Iterator[tuple[str, str | list[str]]]:
    yield from zip(header, record, strict=False)
    if len(record) > len(header):
        yield "…", list(record[len(header) :])


def _records(text: Iterable[str], delimiter: str) -> Iterator[list[str] | Row]:
    """Yield records; one that is no CSV is refused with its first line, the others are read anew.

    So a quotation mark that is never closed costs one line, not the rest of the file.
    """
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        try:
            record = next(reader, None)
        except csv.Error as error:
            if not lines.taken:
                return
            lines.give_back()
            refused = Refused("malformed_csv", None, str(error).split(" - ")[0])
            yield Row((), refused, json.dumps(lines.taken[0]))
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
