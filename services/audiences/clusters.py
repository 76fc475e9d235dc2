"""Clusters of users by the model's vectors, put down for audiences: the trait ``cluster``.

Belongs here: reading all live rows once and writing one file. How vectors are grouped and groups
described is `feature_repo.analytics.clusters`', how audiences read them `audiences.index`'.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from feature_repo.analytics.clusters import Portrait, describe, group
from feature_repo.archive.event_archive import write_part
from feature_repo.audiences.index import CLUSTERS, WORDS, Index
from feature_repo.errors import NotFoundError
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import translated
from feature_repo.online.live_row import FIELDS, parse_live, row_key
from services.models.loaded import load_model
from services.models.user_features import UserFeatureReader
from services.settings import Settings

CHUNK_USERS: Final = 500
_SERVICE: Final = "ranking_v1"

Tell = Callable[[int, int, str], None]


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
    url
        URL of the store.

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
    model = load_model(settings)
    if model is None:
        raise NotFoundError(f"no model below {settings.home / 'models'}: run `portrait train`")
    from training.scoring.scorer import Scorer

    scorer, features = Scorer(model), UserFeatureReader()
    features.open()
    with Index(settings.home) as index:
        users = [str(row[0]) for row in index.rows("SELECT entity FROM users ORDER BY u", {})]
        client = connect_store(url)
        try:
            found = list(_vectors(client, features, scorer, users, now_ms, tell))
        finally:
            client.close()
        tell(0, 0, "clusters")
        places = np.array([place for place, _ in found], dtype=np.int64)
        grouping = group(np.array([vector for _, vector in found], dtype=np.float32))
        labels = np.zeros(len(users), dtype=np.int64)
        labels[places] = grouping.labels
        portraits = describe(index, labels)
    _write(settings.home, users, labels, portraits, now_ms)
    return portraits, grouping.silhouettes


def _vectors(
    client: Any,
    features: UserFeatureReader,
    scorer: Any,
    users: Sequence[str],
    now_ms: int,
    tell: Tell,
) -> Iterator[tuple[int, Any]]:
    fields = [*FIELDS, *features.fields(_SERVICE)]
    for start in range(0, len(users), CHUNK_USERS):
        tell(start, len(users), "vectors")
        chunk = users[start : start + CHUNK_USERS]
        with translated(), client.pipeline(transaction=False) as pipe:
            for user in chunk:
                pipe.hmget(row_key(user), fields)
            answers = pipe.execute()
        for place, values in enumerate(answers, start=start):
            row = parse_live(values[: len(FIELDS)])
            if row is None or not row.learned or row.model != scorer.model.version:
                continue
            known = features.decode(_SERVICE, values[len(FIELDS) :])
            vector = scorer.vector(row.learned, now_ms, known)
            if vector is not None:
                yield place, vector


def _write(
    home: Path, users: Sequence[str], labels: Any, portraits: Sequence[Portrait], now_ms: int
) -> None:
    chosen = np.flatnonzero(labels).tolist()
    as_of = datetime.fromtimestamp(now_ms / 1000, UTC)
    words = {str(each.cluster): each.words() for each in portraits}
    table = pa.table(
        [
            [users[place] for place in chosen], [as_of] * len(chosen),
            [datetime.now(UTC)] * len(chosen), labels[chosen],
        ],
        schema=CLUSTERS.with_metadata({WORDS: orjson.dumps(words)}),
    )  # fmt: skip
    write_part(home / "audiences" / "clusters.parquet", table)
