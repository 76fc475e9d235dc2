"""Tables: any CSV, Parquet or NDJSON file, read through a mapping, as lines.

Belongs here: rows in chunks, and what the mapping makes of their cells. Not here: reading a
format (`csv_rows`, `json_rows`, `arrow_rows`), what the mapping may say (`mapping`), judging
lines (`lines`).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.errors import InvalidSourceError
from feature_repo.events.schema import ORDER_TYPES
from feature_repo.importers.arrow_rows import read_parquet
from feature_repo.importers.assemble import GROUP_MARK, USER_MARK
from feature_repo.importers.cells import Texts, flags, ids, numbers, texts
from feature_repo.importers.csv_rows import read_csv
from feature_repo.importers.files import format_of, parts_of, readable
from feature_repo.importers.json_rows import JsonRows
from feature_repo.importers.lines import AT_FAULT, MARK, STATED
from feature_repo.importers.mapping import Mapping
from feature_repo.importers.rows import FileRow, Refused, unfit
from feature_repo.importers.source import Chunk, Source, hash_ids, key_of
from feature_repo.importers.table_catalogue import TableCatalogue
from feature_repo.importers.times import times_ms

CHUNK_ROWS: Final = 1_000_000
_TEXTS: Final[tuple[str, ...]] = (
    "user_id", "anonymous_id", "session_id", "order_id", "item_id", "category", "brand",
    "variant", "currency", "query", "url", "device", "channel", "coupon", "campaign_id",
)  # fmt: skip
_IDS: Final[tuple[str, ...]] = (
    "id", "user_id", "anonymous_id", "session_id", "order_id", "item_id", "campaign_id",
)  # fmt: skip
_NUMBERS: Final[tuple[str, ...]] = ("quantity", "price", "discount", "rating", "value")
_USERS: Final = ("user_id", "anonymous_id")
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def open_table(path: Path, mapping: Mapping, *, keep_raw: bool = False) -> Source:
    """Open a file, or a folder of them, through a mapping.

    Parameters
    ----------
    path
        CSV, Parquet or NDJSON (``.csv``, ``.parquet``, ``.ndjson``, ``.jsonl``), also ``.gz``
        and ``.zst``.
    mapping
        What its columns mean.
    keep_raw
        Whether rows can be had whole.

    Raises
    ------
    InvalidSourceError
        If the file is missing, of another format, or lacks a column that the mapping names.
    """
    catalogue = TableCatalogue(mapping)
    parts = [(part, _format(part, mapping)) for part in parts_of(path)]
    names = list(dict.fromkeys(mapping.columns.to_columns().values()))
    # Lines of an order must not be torn apart: a file with an order column is one chunk.
    whole = mapping.columns.order_id is not None or mapping.columns.id is not None

    def chunks() -> Iterator[Chunk]:
        rows, start = _rows(path, parts, mapping, names, keep_raw=keep_raw), 0
        while batch := list(islice(rows, None if whole else CHUNK_ROWS)):
            raw, refused = _table(batch, names, mapping, start)
            lines = to_lines(raw, mapping)
            if start == 0:
                _check_times(path, raw, lines, mapping)
            catalogue.add(raw, lines)
            yield Chunk(len(batch), lines, (), list(refused.items()), _raw(batch, start))
            start += len(batch)

    return Source(
        mapping.source, key_of(mapping.source, path), 0, chunks(), catalogue.items,
        mapping.columns.to_columns(),
    )  # fmt: skip


def _format(part: Path, mapping: Mapping) -> str:
    file_format = format_of(part, mapping.format)
    if file_format != "csv" and (mapping.decimal, mapping.thousands) != (".", None):
        raise InvalidSourceError(f"{part.name} is {file_format}: decimal and thousands are of csv")
    return file_format


def _rows(
    path: Path,
    parts: Sequence[tuple[Path, str]],
    mapping: Mapping,
    names: Sequence[str],
    *,
    keep_raw: bool,
) -> Iterator[FileRow]:
    json_rows = JsonRows(mapping, names, raw=keep_raw)
    for part, file_format in parts:
        with readable(part, file_format, mapping.encoding):
            if file_format == "csv":
                yield from read_csv(part, mapping, names, raw=keep_raw)
            elif file_format == "parquet":
                yield from read_parquet(part, mapping, names, raw=keep_raw)
            else:
                yield from json_rows.read(part)
    absent = json_rows.find_absent()
    if absent is not None:
        raise InvalidSourceError(f"{path.name} lacks the column {absent!r} in all of its lines")


def _raw(batch: Sequence[FileRow], start: int) -> Callable[[int], str | None]:
    return lambda row: batch[row - start].raw


def _table(
    batch: Sequence[FileRow], names: Sequence[str], mapping: Mapping, start: int
) -> tuple[pd.DataFrame, dict[int, Refused]]:
    """Return the rows that can be read, trimmed, by source row; and why others cannot."""
    refused = {row: r.refused for row, r in enumerate(batch, start) if r.refused is not None}
    numbers = [row for row in range(start, start + len(batch)) if row not in refused]
    columns = dict(
        zip(names, zip(*(batch[row - start].cells for row in numbers), strict=True), strict=True)
    ) if numbers else dict.fromkeys(names, ())  # fmt: skip
    for name, cells in columns.items():
        for at, reason, detail in unfit(cells):
            refused.setdefault(numbers[at], Refused(reason, name, detail))
    raw = pd.DataFrame(
        {name: texts(cells) for name, cells in columns.items()},
        index=pd.Index(numbers, dtype="int64"), dtype=object,
    )  # fmt: skip
    return raw.drop(index=[row for row in numbers if row in refused]), refused


def _check_times(path: Path, raw: pd.DataFrame, lines: pd.DataFrame, mapping: Mapping) -> None:
    if lines.empty or lines["time_ms"].notna().any():
        return
    first = raw[mapping.columns.time].dropna()
    raise InvalidSourceError(
        f"{path}: no value of column {mapping.columns.time!r} can be read as a time "
        f"(first: {'' if first.empty else first.iloc[0][:40]!r}): "
        "set time_unit to s, ms, us, ns or iso"
    )


def to_lines(raw: pd.DataFrame, mapping: Mapping) -> pd.DataFrame:
    """Return the rows of a table as lines.

    Parameters
    ----------
    raw
        Text of the rows that can be read, words for nothing as they stand, None where a cell is
        empty; the index is the source row.
    mapping
        What the columns mean.
    """
    lines = pd.DataFrame({"source_row": np.asarray(raw.index, dtype=np.int64)})
    told: dict[str, Texts] = {f: raw[c].tolist() for f, c in mapping.columns.to_columns().items()}
    nothing = frozenset(mapping.null_words)
    cells: dict[str, Texts] = {
        f: [None if text in nothing else text for text in column] for f, column in told.items()
    }
    verdict = _Verdict(len(raw), mapping)
    for field in (f for f in _IDS if f in cells):
        cells[field], lost = ids(cells[field], mapping.float_ids)
        verdict.mark(lost, "float_id", field)
    lines["time_ms"] = times_ms(cells["time"], mapping.time_unit, mapping.time_zone)
    for field in (f for f in _TEXTS if f in cells):
        lines[field] = np.array(cells[field], dtype=object)
    if "currency" in cells:
        lines["currency"] = lines["currency"].map(lambda c: c if c is None else c.upper())
    for field in (f for f in _NUMBERS if f in cells):
        lines[field], broken = numbers(cells[field], mapping.decimal, mapping.thousands)
        verdict.mark(broken, "unreadable_number", field)
    for field in ("currency", "channel"):
        if getattr(mapping, field) is not None and field not in lines:
            lines[field] = getattr(mapping, field)
    if "is_merchandise" in cells:
        verdict.mark(~flags(cells["is_merchandise"]), "non_merchandise", "is_merchandise")
    _set_types(lines, cells.get("type"), mapping, verdict)
    _set_orders(lines, mapping)
    _set_ids(lines, cells.get("id"), told, mapping)
    if "value" in lines:  # programs write what they give back with either sign
        lines["value"] = lines["value"].mask(lines["type"] == "refund", lines["value"].abs())
    lines[MARK], lines[AT_FAULT] = verdict.reasons, verdict.columns
    return lines


class _Verdict:
    """The first reason against each line, and the column at fault."""

    def __init__(self, rows: int, mapping: Mapping) -> None:
        self._named = mapping.columns.to_columns()
        self.reasons = np.full(rows, "", dtype=object)
        self.columns = np.full(rows, None, dtype=object)

    def mark(self, wrong: "np.ndarray[Any, Any]", reason: str, field: str) -> None:
        """Note a reason against lines that have none yet."""
        wrong = wrong & (self.reasons == "")
        self.reasons[wrong], self.columns[wrong] = reason, self._named[field]


def _set_types(
    lines: pd.DataFrame, stated: Texts | None, mapping: Mapping, verdict: _Verdict
) -> None:
    if stated is None:
        lines["type"] = mapping.default_type
    else:
        ignored = frozenset(mapping.ignore_types)
        verdict.mark(np.array([t in ignored for t in stated], dtype=bool), "other_type", "type")
        known = (
            {t: t for t in set(stated) if t is not None and _TYPE.fullmatch(t)}
            if mapping.types is None else mapping.types
        )  # fmt: skip
        lines["type"] = pd.Series([known.get(t or "") for t in stated], dtype=object)
    if mapping.negative_quantity == "refund" and "quantity" in lines:
        back = lines["type"].isin(ORDER_TYPES) & (lines["quantity"] < 0)
        lines.loc[back, "type"] = "refund"
        lines.loc[back, "quantity"] = -lines.loc[back, "quantity"]


def _set_orders(lines: pd.DataFrame, mapping: Mapping) -> None:
    if mapping.orders == "user_time":
        made = lines["time_ms"].astype("string") + f"-{USER_MARK}"
        lines["order_id"] = made.where(lines["type"].isin(ORDER_TYPES)).astype(object)


def _set_ids(
    lines: pd.DataFrame, stated: Texts | None, told: dict[str, Texts], mapping: Mapping
) -> None:
    """Give every line its event's id; `USER_MARK` in it becomes the pseudonym when published."""
    prefix = f"{mapping.source}-"
    columns = [c for c in lines.columns if c not in {"source_row", "time_ms", *_USERS}]
    own = hash_ids(prefix, _as_hashed(lines[["time_ms", *columns]], told, mapping), columns)
    if mapping.columns.order_id is not None:
        ordered = lines["type"].isin(ORDER_TYPES) & lines["order_id"].notna()
        order = lines["type"].astype(str) + "-" + lines["order_id"].astype(str)
        own = own.where(~ordered, prefix + order + f"-{USER_MARK}")
    # Two users doing the same at the same moment are two events; the id hides who they are.
    own = own + GROUP_MARK + _users(lines)
    if stated is not None:
        theirs = pd.Series(np.array(stated, dtype=object))
        lines[STATED] = theirs.notna()
        own = theirs.where(theirs.notna(), own)
    lines["event_id"] = own.astype(object)


def _as_hashed(lines: pd.DataFrame, told: dict[str, Texts], mapping: Mapping) -> pd.DataFrame:
    """Return lines as ids have always been made of them, so that none changes.

    A word for nothing counts as it stands, and the mark in an order's id by its earlier name.
    """
    changed = dict[str, Any]()
    for field in (f for f in _TEXTS if f in told and f in lines):
        text: pd.Series[Any] = pd.Series(np.array(told[field], dtype=object))
        if (lines[field].isna() & text.notna()).any():
            changed[field] = lines[field].where(lines[field].notna(), text)
    if mapping.orders == "user_time":
        order_ids = lines["order_id"]
        changed["order_id"] = order_ids.map(lambda o: f"{o[:-1]}{{user}}", na_action="ignore")
    return lines.assign(**changed)


def _users(lines: pd.DataFrame) -> "pd.Series[Any]":
    """Return what tells users apart; a user and an anonymous id of the same name are two."""
    who = pd.Series(None, index=lines.index, dtype=object)
    for field in (f for f in _USERS if f in lines):
        who = who.where(who.notna(), field[0] + lines[field])
    return who.fillna("").astype(str)
