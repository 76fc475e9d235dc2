"""The learned half of every user's row, read once for what is put down for audiences."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

from feature_repo.errors import NotFoundError
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import translated
from feature_repo.online.live_row import FIELDS, parse_live, row_key
from services.models.loaded import load_model, pin
from services.models.user_features import UserFeatureReader
from services.settings import Settings

CHUNK_USERS: Final = 500
_SERVICE: Final = "ranking_v1"

Tell = Callable[[int, int, str], None]


def load_scorer(settings: Settings, url: str) -> Any:
    """Return the scorer of the production model; `NotFoundError` if there is none."""
    with closing(connect_store(url)) as client:
        model = load_model(pin(settings, client))
    if model is None:
        raise NotFoundError(f"no model below {settings.home / 'models'}: run `portrait train`")
    from training.scoring.scorer import Scorer

    return Scorer(model)


def read_learned(
    url: str, users: Sequence[str], version: str, tell: Tell
) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Yield index, learned state and batch features of the users whose row is of model ``version``.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    features, client = UserFeatureReader(), connect_store(url)
    features.open()
    fields = [*FIELDS, *features.fields(_SERVICE)]
    try:
        for start in range(0, len(users), CHUNK_USERS):
            tell(start, len(users), "users read")
            with translated(), client.pipeline(transaction=False) as pipe:
                for user in users[start : start + CHUNK_USERS]:
                    pipe.hmget(row_key(user), fields)
                answers = pipe.execute()
            for index, values in enumerate(answers, start=start):
                row = parse_live(values[: len(FIELDS)])
                if row is not None and row.learned and row.model == version:
                    yield index, row.learned, features.decode(_SERVICE, values[len(FIELDS) :])
    finally:
        client.close()
