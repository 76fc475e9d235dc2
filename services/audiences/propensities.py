"""Probabilities of the model for every user, put down for audiences: the scores that rules name.

Belongs here: writing one file. The propensities themselves are
`training.scoring.scorer`'s; how audiences read the file is `feature_repo.audiences.index`'s.
"""

import pyarrow as pa

from feature_repo.archive.event_archive import Archive, write_part
from feature_repo.audiences.index import PROPENSITIES
from feature_repo.erasure import tombstones
from feature_repo.erasure.parquet_rows import drop_owned
from services.audiences.learned_rows import Tell, load_scorer, read_learned
from services.settings import Settings


def refresh_propensities(settings: Settings, url: str, *, now_ms: int, tell: Tell) -> int:
    """Write every outcome's propensity of every user as of ``now_ms``, and return how many.

    Users whose row no model has seen, or another one, are left out. The file is replaced
    whole: ``home/audiences/chances.parquet``.

    Parameters
    ----------
    settings
        ``home`` and ``model`` are read.

    Raises
    ------
    NotFoundError
        If there is no model.
    StoreUnavailableError
        If the store does not answer.
    """
    scorer = load_scorer(settings, url)
    users = Archive(settings.home / "archive" / "events").users()
    found = [
        (users[index], name, propensity, now_ms)
        for index, learned, known in read_learned(url, users, scorer.model.version, tell)
        for name, (propensity, _) in scorer.propensities(learned, now_ms, known).items()
    ]
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in PROPENSITIES]
    with tombstones.publishing(settings.home) as erased:
        table = drop_owned(pa.table(columns, schema=PROPENSITIES), erased)
        write_part(settings.home / "audiences" / "chances.parquet", table)
    return int(table.num_rows)
