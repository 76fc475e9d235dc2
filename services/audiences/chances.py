"""Probabilities of the model for every user, put down for audiences: the scores of `ScoreTest`.

Belongs here: reading all live rows once and writing one file. The chances themselves are
`training.scoring.scorer`'s; how audiences read the file is `feature_repo.audiences.index`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_repo.archive.event_archive import Archive, write_part
from feature_repo.audiences.index import CHANCES
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
Chance = tuple[str, str, float, int]
"""Pseudonym, name, probability, and as of when (epoch milliseconds)."""


def refresh_propensities(settings: Settings, url: str, *, now_ms: int, tell: Tell) -> int:
    """Write every outcome's chance of every user as of ``now_ms``, and return how many.

    Users whose row no model has seen, or another one, are left out. The file is replaced
    whole: ``home/audiences/chances.parquet``.

    Parameters
    ----------
    settings
        ``home`` and ``model`` are read.
    url
        URL of the store.

    Raises
    ------
    NotFoundError
        If there is no model.
    StoreUnavailableError
        If the store does not answer.
    """
    model = load_model(settings)
    if model is None:
        raise NotFoundError(f"no model below {settings.home / 'models'}: run `portrait train`")
    from training.scoring.scorer import Scorer

    scorer, users = Scorer(model), _users(settings.home)
    features = UserFeatureReader()
    features.open()
    client, found = connect_store(url), list[Chance]()
    try:
        for start in range(0, len(users), CHUNK_USERS):
            tell(start, len(users), "users scored")
            chunk = users[start : start + CHUNK_USERS]
            found += _propensities(client, features, scorer, chunk, now_ms)
    finally:
        client.close()
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in CHANCES]
    write_part(settings.home / "audiences" / "chances.parquet", pa.table(columns, schema=CHANCES))
    return len(found)


def _users(home: Path) -> list[str]:
    archive = Archive(home / "archive" / "events")
    if archive.empty():
        return []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET enable_progress_bar = false")
        rows = connection.execute(
            'SELECT DISTINCT "user" FROM read_parquet(?) ORDER BY 1', [archive.glob()]
        ).fetchall()
    return [str(row[0]) for row in rows]


def _propensities(
    client: Any, features: UserFeatureReader, scorer: Any, users: Sequence[str], now_ms: int
) -> Iterator[Chance]:
    fields = [*FIELDS, *features.fields(_SERVICE)]
    with translated(), client.pipeline(transaction=False) as pipe:
        for user in users:
            pipe.hmget(row_key(user), fields)
        answers = pipe.execute()
    for user, values in zip(users, answers, strict=True):
        row = parse_live(values[: len(FIELDS)])
        if row is None or not row.learned or row.model != scorer.model.version:
            continue
        known = features.decode(_SERVICE, values[len(FIELDS) :])
        for name, (chance, _) in scorer.chances(row.learned, now_ms, known).items():
            yield user, name, chance, now_ms
