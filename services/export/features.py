"""A user's batch features and scores: what lies beside the live row, in the store and in files."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow.parquet as pq
from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.archive.query_bounds import run_until_deadline
from feature_repo.audiences.index import WORDS
from feature_repo.events.schema import iso
from feature_repo.features.catalogue import USER_VIEWS, VIEWS
from feature_repo.online.live_row import LIVE_VIEW, field_key, row_key
from services.context.context import Context
from services.export.schemas import ExportedScores, ExportedView, FeatureSnapshots
from services.history.users import database
from services.models.user_features import decode_value

_CLUSTERS: Final = "clusters.parquet"


async def read_values(context: Context, pseudonym: str) -> list[bytes | None]:
    """Return what the store has of the batch views: of each its features, then its time."""
    fields = [field for view in USER_VIEWS for field in _fields(view)]
    found: list[bytes | None] = await context.await_bounded(
        context.store.hmget(row_key(pseudonym), fields)
    )
    return found


def _fields(view: str) -> list[bytes]:
    return [*(field_key(view, each.name) for each in VIEWS[view]), f"_ts:{view}".encode()]


def show_views(
    home: Path, pseudonym: str, values: Sequence[bytes | None]
) -> dict[str, ExportedView]:
    """Return the batch features by view, those of which nothing is kept left out."""
    shown, start = dict[str, ExportedView](), 0
    for view in (*USER_VIEWS, LIVE_VIEW):
        features = VIEWS[view] if view != LIVE_VIEW else ()
        mine = values[start : start + len(features)]
        stamp = values[start + len(features)] if features else None
        start += len(features) + 1
        snapshots = _count_snapshots(home / "features" / view, pseudonym)
        if stamp is None and not snapshots["rows"]:
            continue
        shown[view] = {
            "as_of": None if stamp is None else _time_of(stamp),
            "values": {
                each.name: {
                    "value": decode_value(value) if value else None, "unit": each.unit,
                    "meaning": each.equation,
                }
                for each, value in zip(features, mine, strict=True) if stamp is not None
            },
            "snapshots": snapshots,
        }  # fmt: skip
    return shown


def _time_of(stamp: bytes) -> str:
    moment = Timestamp.FromString(stamp)
    return iso(moment.seconds * 1000 + moment.nanos // 1_000_000)


def _count_snapshots(folder: Path, pseudonym: str) -> FeatureSnapshots:
    rows = _query(
        sorted(folder.glob("*.parquet")), pseudonym,
        "count(*), epoch_ms(min(event_timestamp)), epoch_ms(max(event_timestamp))",
    )  # fmt: skip
    count, first, last = rows[0] if rows else (0, None, None)
    return {
        "rows": int(count),
        "first_at": None if first is None else iso(int(first)),
        "last_at": None if last is None else iso(int(last)),
    }


def read_scores(home: Path, pseudonym: str) -> ExportedScores:
    """Return what the files of scores and clusters say of a user."""
    folder = home / "audiences"
    found = _query([folder / "chances.parquet"], pseudonym, "name, value, as_of_ms", "ORDER BY 1")
    clusters = _query([folder / _CLUSTERS], pseudonym, "cluster, event_timestamp")
    cluster = None
    if clusters:
        number, at = clusters[0]
        cluster = _show_cluster(folder / _CLUSTERS, int(number), at)
    return {
        "propensities": [{"name": n, "p": p, "as_of": iso(at_ms)} for n, p, at_ms in found],
        "cluster": cluster,
    }


def _show_cluster(path: Path, number: int, at: datetime) -> Any:
    words = orjson.loads((pq.read_schema(path).metadata or {}).get(WORDS, b"{}"))
    at_ms = round(at.timestamp() * 1000)
    return {"cluster": number, "meaning": words.get(str(number)), "as_of": iso(at_ms)}


def _query(
    paths: Sequence[Path], pseudonym: str, columns: str, more: str = ""
) -> list[tuple[Any, ...]]:
    files = [str(path) for path in paths if path.exists()]
    if not files:
        return []
    with database().cursor() as cursor, run_until_deadline(cursor):
        found: list[tuple[Any, ...]] = cursor.execute(
            f'SELECT {columns} FROM read_parquet(?) WHERE "user" = ? {more}',  # noqa: S608
            [files, pseudonym],
        ).fetchall()
    return found
