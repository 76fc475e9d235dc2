"""Settings of a shop to be rebuilt, and the model that its jobs take."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from event_log import PSEUDONYMS, Sum
from rebuilt_shop import (
    PARTITIONS,
    made,
)

from services.models import loaded
from services.rebuild import jobs as rebuild_jobs
from services.settings import Settings


@pytest.fixture(autouse=True)
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that chooses the model, for jobs that run in this process."""

    def choose(learned: Any) -> None:
        rebuild_jobs._transition.cache_clear()
        monkeypatch.setattr(loaded, "transition", lambda settings: made(learned))

    choose(Sum())
    return choose


@pytest.fixture
def settings(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "tenant.json").write_text(
        json.dumps({"key": PSEUDONYMS.key.hex(), "partitions": PARTITIONS})
    )
    yield Settings(home=tmp_path, redis_url=redis_url, partitions=PARTITIONS)
    rebuild_jobs._transition.cache_clear()
