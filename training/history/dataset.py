"""Point-in-time training sets: positions, what was known at each, and what came after.

A position is a new order (`feature_repo.user_profile.order_memory`); its features are what Feast's
point-in-time join finds from before it; its labels look at the archive after it, and are null where
the data ends too early. How features are computed is `feature_repo.features.snapshots`' work.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pandas as pd
import pyarrow as pa

from feature_repo.archive.event_archive import Archive, write_part
from feature_repo.audiences.denials import read_denying
from feature_repo.erasure import tombstones
from feature_repo.erasure.parquet_rows import drop_owned
from feature_repo.errors import NotFoundError, PointInTimeError
from feature_repo.user_profile.order_memory import told_again
from feature_repo.user_profile.purposes import read_defaults

HORIZONS_DAYS: Final = (7, 28)
PIECE_ROWS: Final = 200_000
"""Positions joined at a time."""

_ORDERS: Final = told_again(
    """(SELECT *, coalesce(order_id, event_id) AS order_key, 0 AS worth_m, true AS is_stated,
        len(items) AS num_lines, epoch_us(time) // 86_400_000_000 AS day
    FROM archive WHERE type = 'purchase' AND time < make_timestamptz($until))""",
    user='"user"', event="event_id", order="time, log_ms, log_seq, event_id", day="day",
)  # fmt: skip
_POSITIONS: Final = f"""
WITH purchases AS (
    SELECT "user", time AS event_timestamp, event_id, order_id, value, num_lines
    FROM ({_ORDERS}) WHERE is_new
),
ended AS (SELECT least(max(time), make_timestamptz($until)) AS data_end FROM archive),
ahead AS (
    SELECT *, min(event_timestamp) OVER (
        PARTITION BY "user" ORDER BY event_timestamp
        RANGE BETWEEN INTERVAL 1 MICROSECOND FOLLOWING AND UNBOUNDED FOLLOWING
    ) AS next_purchase
    FROM purchases
)
SELECT "user", event_timestamp, event_id, order_id, value, num_lines, {{labels}},
    (epoch_us(next_purchase) - epoch_us(event_timestamp)) / 86400e6 AS days_to_next_purchase
FROM ahead, ended
WHERE event_timestamp >= make_timestamptz($since) AND NOT list_contains($denying, "user")
ORDER BY event_timestamp, "user", event_id
"""  # noqa: S608 - built from constants


def positions(home: Path, *, since: datetime | None = None, until: datetime) -> pd.DataFrame:
    """Return one row for every new order with ``since <= time < until``, oldest first.

    Of who denies analytics, now, there is none.

    Parameters
    ----------
    home
        State folder (``PORTRAIT_HOME``).
    since, until
        Bounds of the positions. ``until`` also ends what labels may look at.

    Returns
    -------
    pandas.DataFrame
        ``user`` (pseudonym), ``event_timestamp``, ``event_id``, ``order_id``, ``value``,
        ``num_lines`` and the labels:
        ``purchase_7d``, ``purchase_28d`` (1 if the user buys again within the days *after*
        the position, 0 if not, null if the data ends within them) and
        ``days_to_next_purchase`` (null if none is known).

    Raises
    ------
    NotFoundError
        If the archive is empty.
    """
    archive = Archive(home / "archive" / "events")
    if archive.empty():
        raise NotFoundError(f"no events in {archive.root}: run `portrait import` first")
    labels = ", ".join(
        f"CASE WHEN next_purchase <= event_timestamp + INTERVAL {days} DAY THEN 1 "
        f"WHEN event_timestamp + INTERVAL {days} DAY <= data_end THEN 0 END AS purchase_{days}d"
        for days in HORIZONS_DAYS
    )
    earliest = datetime.fromtimestamp(0, UTC)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
        connection.read_parquet([str(part) for part in archive.parts()]).create_view("archive")
        table = connection.sql(
            _POSITIONS.format(labels=labels),
            params={
                "since": _micros(since or earliest),
                "until": _micros(until),
                "denying": sorted(read_denying(home, "analytics", read_defaults(os.environ))),
            },
        ).to_arrow_table()
    frame: pd.DataFrame = table.to_pandas()
    for days in HORIZONS_DAYS:
        frame[f"purchase_{days}d"] = frame[f"purchase_{days}d"].astype("Int8")
    return frame


def point_in_time(
    home: Path,
    entities: pd.DataFrame,
    service: str = "training_v1",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return ``entities`` with the features of a service as they stood at each row's time.

    Parameters
    ----------
    home
        State folder; its registry is applied when there is none yet.
    entities
        Rows with ``user`` and ``event_timestamp`` (with a time zone); other columns pass.
    service
        Feature service of user features.
    progress
        Told rows joined so far and in all.

    Returns
    -------
    pandas.DataFrame
        The same rows in the same order, with one column more for every feature.

    Raises
    ------
    PointInTimeError
        If the join lost or doubled rows.
    """
    from feature_repo.feast_stores.store import quiet

    marked = entities.reset_index(drop=True)
    marked["_position"] = range(len(marked))
    # In pieces, so that progress can be told and the join's working set stays bounded.
    pieces: list[pd.DataFrame] = []
    with _store(home) as store:
        wanted = store.get_feature_service(service)
        for start in range(0, max(1, len(marked)), PIECE_ROWS):
            if progress is not None:
                progress(start, len(marked))
            piece = marked.iloc[start : start + PIECE_ROWS].copy()
            with quiet():
                job = store.get_historical_features(entity_df=piece, features=wanted)
                pieces.append(job.to_df())
    joined: pd.DataFrame = pd.concat(pieces, ignore_index=True) if len(pieces) > 1 else pieces[0]
    if len(joined) != len(entities):
        raise PointInTimeError(
            f"asked for {len(entities)} rows, the join gave {len(joined)}: "
            "rebuild the feature tables with `portrait materialize`"
        )
    joined = joined.sort_values("_position", ignore_index=True)
    if not (joined["user"].to_numpy() == marked["user"].to_numpy()).all():
        raise PointInTimeError("the join changed the users of its rows: rebuild the feature tables")
    return joined.drop(columns="_position")


def build(
    home: Path,
    *,
    as_of: datetime,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the training set as of a moment to a Parquet file.

    Parameters
    ----------
    home
        State folder.
    as_of
        Nothing at or after it is seen, by features or by labels.
    out
        File to write; appears whole or not at all. Nobody erased is in it.
    progress
        Told rows joined so far and in all.
    """
    found = positions(home, until=as_of)
    table = pa.Table.from_pandas(
        point_in_time(home, found, progress=progress), preserve_index=False
    )
    with tombstones.publishing(home) as erased:
        table = drop_owned(table, erased)
        write_part(out, table)
    return int(table.num_rows)


def _micros(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1_000_000)


@contextmanager
def _store(home: Path) -> Iterator[Any]:
    """Open Feast's store on ``home``; the offline side needs no online store to be up."""
    from feature_repo.feast_stores import store

    wanted = {
        "PORTRAIT_HOME": str(home.resolve()),
        "PORTRAIT_REDIS_URL": os.environ.get("PORTRAIT_REDIS_URL") or "redis://127.0.0.1:6379",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        if not (home / "registry.db").exists():
            store.apply()
        yield store.open_store()
    finally:
        store.close_offline()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
