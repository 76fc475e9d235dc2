"""Clusters of users by the model's vectors, put down for audiences: the trait ``cluster``.

Belongs here: writing one file. How vectors are grouped and groups
described is `feature_repo.analytics.clusters`', how audiences read them `audiences.index`'.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from feature_repo.analytics.clusters import Portrait, describe, group
from feature_repo.archive.event_archive import write_part
from feature_repo.audiences.index import CLUSTERS, WORDS, Index
from feature_repo.erasure import tombstones
from feature_repo.erasure.parquet_rows import drop_owned
from services.audiences.learned_rows import Tell, load_scorer, read_learned
from services.settings import Settings


def refresh_clusters(
    settings: Settings, url: str, *, now_ms: int, tell: Tell
) -> tuple[list[Portrait], dict[int, float]]:
    """Group every user by the model's vector as of ``now_ms``; return what sets groups apart.

    Users whose row no model has seen, or another one, are in no cluster. The file is replaced
    whole: ``home/audiences/clusters.parquet``.

    Parameters
    ----------
    settings
        ``home`` and ``model`` are read.

    Returns
    -------
    tuple[list[Portrait], dict[int, float]]
        The clusters, and the silhouette of each number of clusters that was tried.

    Raises
    ------
    NotFoundError
        If there is no model.
    InvalidInputError
        If there are too few users for clusters of twenty.
    StoreUnavailableError
        If the store does not answer.
    """
    scorer = load_scorer(settings, url)
    with Index(settings.home, settings.standing) as index:
        users = [str(row[0]) for row in index.rows("SELECT entity FROM users ORDER BY u", {})]
        vectors = (
            (index, scorer.vector(learned, now_ms, known))
            for index, learned, known in read_learned(url, users, scorer.model.version, tell)
        )
        silent = {u for (u,) in index.rows("SELECT u FROM uncounted", {})}
        found = [
            (number, vector) for number, vector in vectors
            if vector is not None and number not in silent
        ]  # fmt: skip
        tell(0, 0, "clusters")
        indices = np.array([index for index, _ in found], dtype=np.int64)
        grouping = group(np.array([vector for _, vector in found], dtype=np.float32))
        labels = np.zeros(len(users), dtype=np.int64)
        labels[indices] = grouping.labels
        portraits = describe(index.without_denying(), labels)
    _write(settings.home, users, labels, portraits, now_ms)
    return portraits, grouping.silhouettes


def _write(
    home: Path, users: Sequence[str], labels: Any, portraits: Sequence[Portrait], now_ms: int
) -> None:
    chosen = np.flatnonzero(labels).tolist()
    as_of = datetime.fromtimestamp(now_ms / 1000, UTC)
    words = {str(each.cluster): each.words() for each in portraits}
    table = pa.table(
        [
            [users[index] for index in chosen], [as_of] * len(chosen),
            [datetime.now(UTC)] * len(chosen), labels[chosen],
        ],
        schema=CLUSTERS.with_metadata({WORDS: orjson.dumps(words)}),
    )  # fmt: skip
    with tombstones.publishing(home) as erased:
        write_part(home / "audiences" / "clusters.parquet", drop_owned(table, erased))
