"""Sources of an import: rows as lines, in chunks, and a catalogue.

Belongs here: the shape that every source module fills, and the small conversions they share.
Not here: anything that knows one particular data set.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from feature_repo.archive.catalogue import Item
from feature_repo.archive.event_archive import LogPosition
from feature_repo.events.schema import EventRecord
from feature_repo.importers.assemble import USER_MARK, Made
from feature_repo.importers.files import name_of
from feature_repo.importers.rows import Refused

_STEM: Final = 64
_STEM_BYTES: Final = 160
"""Characters and bytes of a table's name in the names of files: they have 255 bytes in all."""


Placed = tuple[LogPosition, EventRecord]
"""An event as it was kept, and where it is to stand among imported ones."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of a source.

    Attributes
    ----------
    rows
        How many rows of the source there are in it; they count on from the chunk before.
    lines
        The rows that could be read, converted (see `lines`); empty where they are events already.
    made
        Events of rows that are events already.
    placed
        Rows that are events as they were kept, by number.
    refused
        Rows that could not even be converted.
    raw
        Returns a row, by number, whole, as JSON; where that is kept.
    """

    rows: int
    lines: pd.DataFrame
    made: Sequence[Made] = ()
    refused: Sequence[tuple[int, Refused]] = ()
    raw: Callable[[int], str | None] = lambda _: None
    placed: Sequence[tuple[int, Placed]] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A source that has been opened.

    Attributes
    ----------
    name
        Value of ``source`` in every event.
    key
        Names files made from this source (rejects, catalogue); safe in a file name.
    total
        Rows expected, for progress; 0 when unknown.
    chunks
        The rows.
    items
        Returns the catalogue once all chunks were read; nothing where the source has none.
    columns
        Column of the file by field.
    extras
        Events that come from no row of behaviour (mailings, coupons), in the outside form.
    """

    name: str
    key: str
    total: int
    chunks: Iterable[Chunk]
    items: Callable[[], Sequence[Item]] = tuple
    columns: Mapping[str, str] = field(default_factory=dict)
    extras: Iterable[Made] = ()


def key_of(source: str, path: Path) -> str:
    """Return the name of files made from ``path`` by a source.

    Where not all of the path's name can be in it, a hash of that name tells it from others.

    Examples
    --------
    >>> key_of("shop", Path("shop.csv")), key_of("shop", Path("x.csv.gz"))
    ('shop', 'shop-x')
    >>> key_of("shop", Path("2024.01")), key_of("shop", Path("2024_01"))
    ('shop-2024_01-d3bdc269', 'shop-2024_01')
    """
    name = name_of(path)
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:_STEM]
    while len(stem.encode()) > _STEM_BYTES:
        stem = stem[:-1]
    if stem != name or not stem:
        stem += f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return source if source == stem else f"{source}-{stem}"


def readable_name(text: str) -> str:
    """Return a shouted label in title case, without ``/`` (which separates category levels).

    Examples
    --------
    >>> readable_name("ICE - CRUSHED/CUBED")
    'Ice - Crushed & Cubed'
    """
    spaced = re.sub(r"\s*/\s*", " & ", text.strip())
    words = re.sub(r"\s+", " ", spaced).split(" ")
    return " ".join(word[:1].upper() + word[1:].lower() for word in words)


def hash_ids(prefix: str, frame: pd.DataFrame, columns: Sequence[str]) -> "pd.Series[Any]":
    """Return an event id per row that depends on the row's content alone.

    The user is in it as `USER_MARK`, which `publish` turns into the pseudonym.

    Parameters
    ----------
    prefix
        Begins every id.
    frame
        Lines; ``time_ms`` becomes part of the id.
    columns
        Columns whose content makes the id; no user id among them.
    """
    text = frame[list(columns)].astype(object)
    digest = pd.util.hash_pandas_object(text.where(text.notna(), "").astype(str), index=False)
    times = frame["time_ms"].astype("Int64").astype("string").fillna("").astype(object)
    return prefix + times + "-" + digest.map("{:016x}".format).astype(object) + f"-{USER_MARK}"


def epoch_ms(times: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return datetimes without zone (read as UTC) or with one as epoch milliseconds, or null."""
    aware = pd.to_datetime(times, utc=True)
    millis = aware.astype("datetime64[ms, UTC]").astype("int64").astype("Int64")
    return millis.mask(aware.isna())


def labels(values: "pd.Series[Any]", prefix: str = "") -> "pd.Series[Any]":
    """Return numbers or text as categorical text: each distinct value is made once.

    Examples
    --------
    >>> labels(pd.Series([7, 7, 8]), "cj-").tolist()
    ['cj-7', 'cj-7', 'cj-8']
    """
    codes, distinct = pd.factorize(values)
    text = [f"{prefix}{value}" for value in distinct]
    return pd.Series(
        pd.Categorical.from_codes(codes, pd.Index(text, dtype=object)), index=values.index
    )


def constant(value: str, rows: int) -> "pd.Categorical[str]":
    """Return the same label for every row."""
    codes = np.zeros(rows, dtype=np.int64)
    return pd.Categorical.from_codes(codes, pd.Index([value], dtype=object))
