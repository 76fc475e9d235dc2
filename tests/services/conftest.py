"""A gateway and an updater on the session's real server, one pair a module."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from gateway_thread import Api
from stalls import PATIENCE_S

from feature_repo.feast_stores import store as feast_store
from services.client import Client
from services.settings import Settings

_users = itertools.count()


@pytest.fixture(scope="module")
def make_api(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Api]]:
    """Return a function that starts a gateway and an updater on an emptied store."""
    started = list[Api]()

    def make(**given: Any) -> Api:
        while started:  # the store is shared: an updater must not see it emptied under it
            started.pop().stop()
        client = redis.Redis.from_url(redis_url)
        client.flushall()
        client.close()
        home = tmp_path_factory.mktemp("home")
        usual: dict[str, Any] = {
            "archive_every_s": 3600, "store_bound_s": PATIENCE_S, "wrong_keys_per_min": 0,
        }  # fmt: skip
        settings = Settings(home=home, redis_url=redis_url, **(usual | given))
        settings.export(redis_url)
        feast_store.apply()
        api = Api(settings, redis_url)
        started.append(api)
        api.start()
        api.start_updater()
        return api

    try:
        yield make
    finally:
        for api in started:
            api.stop()


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with api.client() as client:
        yield client


@pytest.fixture
def user() -> str:
    """Return an id that no test had before."""
    return f"user-{next(_users)}"
