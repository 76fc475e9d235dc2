"""The archive without a link: what an anonymous id did stands no more in a user's history.

Belongs here: which rows of a part that changes, and how. The same events stand in the anonymous
id's own history by then. Not here: how parts are exchanged (`archive_parts`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.archive.log_span import LogPosition, Span
from feature_repo.erasure.archive_parts import rewrite_archive, unlink_rows
from feature_repo.erasure.removal import Removal
from feature_repo.events.pseudonyms import partition_of

_COLUMNS = ["user", "linked", "anonymous", "log_ms", "log_seq"]


class Link(NamedTuple):
    """A user and an anonymous id that became theirs, both as pseudonyms."""

    user: str
    anonymous: str


def unlink_archive(
    home: Path, link: Link, until: LogPosition, progress: Callable[[int, int], None] | None = None
) -> Removal:
    """Rewrite the archive's parts without a link, as far as a position of the user's log.

    The anonymous id's events among the user's are left out; the user's own name it no more.

    Parameters
    ----------
    progress
        Told parts rewritten and in all.
    """
    return rewrite_archive(
        home,
        partial(_count, link=link, until=until),
        partial(_change, link=link, until=until),
        progress,
    )


def _count(path: Path, link: Link, until: LogPosition) -> int:
    span = Span.of(path)
    if span is not None and span.partition != partition_of(link.user):
        return 0
    if "linked" not in pq.read_schema(path).names:
        return 0
    # The file's statistics let whole row groups be passed over: parts are sorted by user.
    wanted = [("user", "==", link.user), ("linked", "==", link.anonymous)]
    table = pq.read_table(path, columns=_COLUMNS, filters=wanted, partitioning=None)
    return int(pc.sum(_is_of(table, link, until)).as_py() or 0)


def _change(table: pa.Table, link: Link, until: LogPosition) -> pa.Table:
    theirs = _is_of(table, link, until)
    if not pc.any(theirs).as_py():
        return table
    table = table.filter(pc.invert(pc.and_(theirs, table["anonymous"])))
    return unlink_rows(table, _is_of(table, link, until))


def _is_of(table: pa.Table, link: Link, until: LogPosition) -> Any:
    """Return for each row whether it is the user's, names the anonymous id, and is old enough."""
    ms, seq = table["log_ms"], table["log_seq"]
    at_end = pc.and_(pc.equal(ms, until.ms), pc.less_equal(seq, until.seq))
    before = pc.or_(pc.less(ms, until.ms), at_end)
    named = pc.and_(
        pc.equal(table["user"].cast(pa.string()), link.user),
        pc.fill_null(pc.equal(table["linked"].cast(pa.string()), link.anonymous), False),
    )
    return pc.and_(named, before)
