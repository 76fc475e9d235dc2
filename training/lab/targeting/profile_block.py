"""Profile features as of a moment, by Feast's point-in-time join, as a block for `block_model`.

Belongs here: asking the offline store. Not here: how features are made (`feature_repo`).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo import importers
from feature_repo.errors import InvalidInputError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.features import snapshots
from feature_repo.importers.complete_journey import LAST_MS
from training.history.prepare import TRAINING_SERVICE, History, numeric_columns, read_histories
from training.history.user_features import compress


def profile_block(home: Path, users: Sequence[str], time_ms: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return the numeric features of the training service at each moment, compressed.

    Parameters
    ----------
    home
        State folder with feature tables.
    users, time_ms
        Pseudonyms and moments, epoch milliseconds; only what was known before counts.

    Returns
    -------
    DataFrame
        ``sign(x) log(1 + |x|)`` of every feature, 0 where it is missing, a row each.
    """
    from training.history.dataset import point_in_time

    entities = pd.DataFrame(
        {"user": list(users), "event_timestamp": pd.to_datetime(time_ms, unit="ms", utc=True)}
    )
    names, table = numeric_columns(point_in_time(home, entities, service=TRAINING_SERVICE))
    return pd.DataFrame(np.nan_to_num(compress(table)), columns=names)


def import_home(home: Path, tell: Callable[[str], None]) -> None:
    """Import Complete Journey into a state folder that is empty or not there yet.

    Raises
    ------
    InvalidInputError
        If there is no archive in the folder, but something else.
    """
    if not any((home / "archive" / "events").glob("**/*.parquet")):
        if home.exists() and (not home.is_dir() or any(home.iterdir())):
            raise InvalidInputError(f"{home} holds no archive: name a state folder or an empty one")
        tell("importing Complete Journey")
        importers.run("completejourney", home=home)


def prepare_home(home: Path, tell: Callable[[str], None]) -> None:
    """Do as `import_home`, and build the feature tables.

    Raises
    ------
    InvalidInputError
        See `import_home`.
    """
    import_home(home, tell)
    if not any((home / "features" / "profile").glob("*.parquet")):
        tell("building feature tables")
        end = datetime.fromtimestamp(LAST_MS / 1000, UTC)
        snapshots.build(home, until=end)


def read_home(home: Path) -> list[History]:
    """Return all histories of a state folder that `prepare_home` has made or found.

    Raises
    ------
    InvalidInputError
        If they are not Complete Journey's.
    """
    found = read_histories(home)
    if Pseudonyms.load(home).of_user("household-1") not in {user for user, _ in found}:
        raise InvalidInputError(
            f"{home} holds another shop: name a state folder with Complete Journey or an empty one"
        )
    return found
