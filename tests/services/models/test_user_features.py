"""Batch features read beside the live row are those that Feast's own read gives."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from feature_repo.feast_stores import store as feast_store
from feature_repo.features import catalogue as feature_list
from feature_repo.online.live_row import LIVE_VIEW, row_key
from services.models.user_features import UserFeatureReader
from services.settings import Settings

USER = "{p003}" + "a" * 26
SAMPLES: dict[str, Any] = {
    "int": 5, "float": 0.1, "str": "active", "list[str]": ["x/y", "ü"], "list[float]": [0.5, 2.0],
}  # fmt: skip


@pytest.fixture(scope="module")
def features(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> UserFeatureReader:
    Settings(home=tmp_path_factory.mktemp("home"), redis_url=redis_url).export(redis_url)
    feast_store.apply()
    found = UserFeatureReader()
    found.open()
    return found


def both(features: UserFeatureReader, client: "redis.Redis", user: str, service: str) -> list[Any]:
    """Return what Feast says and what we read by hand."""
    asked = feast_store.read_user(features._store, user, service)
    live = {f.name for f in feature_list.VIEWS[LIVE_VIEW]}
    feast = {k: v for k, v in asked.items() if k not in live and k != "user"}
    values = client.hmget(row_key(user), features.fields(service))
    return [feast, features.decode(service, values)]


@pytest.mark.parametrize("service", ["profile_v1", "ranking_v1"])
def test_decoded_by_hand_a_row_is_what_feast_reads(
    features: UserFeatureReader, store_client: "redis.Redis", service: str
) -> None:
    now = [datetime.now(UTC)]
    for view in feature_list.USER_VIEWS:
        columns = {
            f.name: [SAMPLES[f.dtype] if n % 3 else None]
            for n, f in enumerate(feature_list.VIEWS[view])
        }
        keys = {"user": [USER], "event_timestamp": now, "created": now}
        frame = pd.DataFrame(keys | columns)
        features._store.write_to_online_store(view, frame)
    feast, ours = both(features, store_client, USER, service)
    assert ours == feast
    assert any(value is not None for value in feast.values())
    assert any(value is None for value in feast.values())


def test_a_user_without_a_row_has_all_features_empty(
    features: UserFeatureReader, store_client: "redis.Redis"
) -> None:
    feast, ours = both(features, store_client, USER, "profile_v1")
    assert ours == feast
    assert set(ours.values()) == {None}


def test_without_a_registry_there_are_no_features(tmp_path: Path) -> None:
    features = UserFeatureReader()
    assert features.fields("profile_v1") == []
    assert features.decode("profile_v1", []) is None
