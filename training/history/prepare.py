"""From the archive to arrays: vocabulary, histories, moments and point-in-time features."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.archive.event_archive import Archive
from feature_repo.audiences.denials import read_denying
from feature_repo.erasure import tombstones
from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import EventRecord, iso
from feature_repo.user_profile.order_memory import without_repeats
from feature_repo.user_profile.purposes import read_defaults
from training.history.prepared import VALIDATION_DAYS, Moments, Prepared, weekly_moments
from training.history.sequences import encode
from training.history.user_features import UserFeatures
from training.history.vocabulary import DAY_MS, build_vocabulary

History = tuple[str, list[EventRecord]]
PointInTime = Callable[[list[str], npt.NDArray[np.int64]], Any]
"""Takes users and times (ms), returns a pandas table of feature columns in that order."""

FEATURE_SERVICE = "ranking_v1"
TRAINING_SERVICE = "training_v1"
"""The same without the live state, whose offline rows a rebuild may or may not have left."""
MIN_TARGETS = 50


def milliseconds(moment: datetime) -> int:
    """Return epoch milliseconds of a moment; `InvalidInputError` if it has no offset."""
    if moment.tzinfo is None:
        raise InvalidInputError(f"{moment.isoformat()} has no offset: add Z or +hh:mm")
    return round(moment.timestamp() * 1000)


def read_histories(home: Path, *, until_ms: int | None = None) -> list[History]:
    """Return every user's archived events in fold order, before ``until_ms``.

    An order that is told again is there once, as in the live state. Who denies analytics, now, is
    left out, and who is erased.
    """
    archive = Archive(home / "archive" / "events")
    denying = read_denying(home, "analytics", read_defaults(os.environ))
    left_out = tombstones.read(home).union(denying)
    return [
        (user, without_repeats(history))
        for user, history in archive.histories(until_ms=until_ms)
        if user not in left_out
    ]


def prepare(
    histories: list[History],
    *,
    cut_off_ms: int,
    point_in_time: PointInTime | None = None,
    support: int | None = None,
) -> Prepared:
    """Build what the training loop reads.

    Parameters
    ----------
    histories
        Users with their events in fold order; later events than the cut-off are left out.
    cut_off_ms
        Start of the test period. Validation is the `VALIDATION_DAYS` before it.
    point_in_time
        Joins the feature service's features; None trains without them.
    support
        Fewest events of a known item; None: `training.history.vocabulary.minimum_support`.

    Raises
    ------
    InvalidInputError
        If too few baskets lie before the cut-off to fit and to validate.
    """
    train_until = cut_off_ms - VALIDATION_DAYS * DAY_MS
    before = [(u, [e for e in h if e.time_ms < cut_off_ms]) for u, h in histories]
    vocabulary = build_vocabulary(before, until_ms=train_until, support=support)
    encoded = encode([(u, h) for u, h in before if h], vocabulary)
    trained = int((encoded.target & (encoded.time_ms < train_until)).sum())
    validated = int((encoded.target & (encoded.time_ms >= train_until)).sum())
    if not vocabulary.items or min(trained, validated) < MIN_TARGETS:
        raise InvalidInputError(
            f"{trained} baskets before {iso(train_until)} and {validated} up to the cut-off, "
            f"{len(vocabulary.items)} items known: at least {MIN_TARGETS} baskets each are "
            "needed; import more history or choose another cut-off"
        )
    start = int(encoded.time_ms.min())
    moments = weekly_moments(encoded, since_ms=start, until_ms=cut_off_ms)
    prepared = Prepared(
        vocabulary, UserFeatures.none(), encoded,
        np.zeros((len(encoded.time_ms), 0), np.float32), moments, train_until, cut_off_ms,
    )  # fmt: skip
    return prepared if point_in_time is None else add_features(prepared, point_in_time)


def add_features(prepared: Prepared, point_in_time: PointInTime) -> Prepared:
    """Join the user features to every event and moment; statistics from training only."""
    histories, moments = prepared.histories, prepared.moments
    events = len(histories.time_ms)
    owners = np.repeat(np.arange(len(histories.users)), histories.lengths())
    rows = np.concatenate([owners, moments.user])
    times = np.concatenate([histories.time_ms, moments.time_ms])
    names, table = numeric_columns(point_in_time([histories.users[r] for r in rows], times))
    early = times < prepared.train_until_ms
    features = UserFeatures.fit(FEATURE_SERVICE, names, table[early])
    chosen = [names.index(name) for name in features.names]
    values = features.transform(table[:, chosen])
    return Prepared(
        prepared.vocabulary,
        features,
        histories,
        values[:events],
        Moments(moments.user, moments.event, moments.time_ms, moments.labels, values[events:]),
        prepared.train_until_ms,
        prepared.until_ms,
    )


def numeric_columns(table: Any) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the names and values of a pandas table's numeric columns, sorted by name."""
    numbers = table.select_dtypes(include=["number", "bool"])
    names = sorted(str(c) for c in numbers.columns)
    return names, numbers[names].to_numpy(dtype=np.float64, na_value=np.nan)


def feast_join(home: Path) -> PointInTime | None:
    """Return the join through Feast's offline store, None where no features were built."""
    if not any((home / "features").glob("*/*.parquet")):
        return None
    return lambda users, times_ms: _join(home, users, times_ms)


def _join(home: Path, users: list[str], times_ms: npt.NDArray[np.int64]) -> Any:
    import pandas as pd

    from training.history.dataset import point_in_time

    entities = pd.DataFrame(
        {"user": users, "event_timestamp": pd.to_datetime(times_ms, unit="ms", utc=True)}
    )
    joined = point_in_time(home, entities, service=TRAINING_SERVICE)
    return joined.drop(columns=["user", "event_timestamp", "item_id"], errors="ignore")
