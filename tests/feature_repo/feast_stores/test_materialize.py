"""Offline equals online: Feast's point-in-time rows as of now are what a reader gets."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from feature_repo.errors import InvalidSettingError, LiveStateWriteError, NotFoundError
from feature_repo.feast_stores import store
from feature_repo.features import snapshots
from feature_repo.features.catalogue import BATCH_VIEWS
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import load_live
from tests.feature_repo import shop_log
from tests.feature_repo.fixed_shop import LOG

AS_OF = shop_log.START + timedelta(days=120)


@pytest.fixture
def home(tmp_path: Path, redis_url: str, store_client: redis.Redis, monkeypatch: Any) -> Path:
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    shop_log.write(tmp_path, LOG)
    snapshots.build(tmp_path, until=AS_OF)
    store.apply()
    return tmp_path


def offline(opened: Any, users: list[str], service: str) -> pd.DataFrame:
    rows = pd.DataFrame({"user": users, "event_timestamp": [pd.Timestamp(AS_OF)] * len(users)})
    with store.quiet():
        job = opened.get_historical_features(
            entity_df=rows, features=opened.get_feature_service(service)
        )
        return job.to_df().set_index("user")


def same(online: Any, stored: Any) -> None:
    if isinstance(stored, float) and stored != stored:
        assert online is None
    elif hasattr(stored, "tolist") and getattr(stored, "ndim", 0):
        assert online == stored.tolist()
    else:
        assert online == stored


async def read_all(opened: Any) -> list[dict[str, Any]]:
    try:
        return [await store.read_user_async(opened, user) for user in shop_log.USERS]
    finally:
        await opened.close()


def test_online_equals_offline_as_of_now(home: Path) -> None:
    counts = store.materialize(shop_log.START, AS_OF)
    assert set(counts) == set(BATCH_VIEWS)
    assert all(counts.values())
    opened = store.open_store()
    # The live view has no offline row here: both sides must say so.
    expected = offline(opened, list(shop_log.USERS), "profile_v1")
    asynchronous = asyncio.run(read_all(opened))
    for user, answer in zip(shop_log.USERS, asynchronous, strict=True):
        online = store.read_user(opened, user)
        assert answer == online
        for name, value in online.items():
            if name not in {"user", "profile", "learned", "version", "model"}:
                same(value, expected.loc[user, name])
    trained = offline(opened, list(shop_log.USERS), "training_v1")
    for user in shop_log.USERS:
        for name, value in store.read_user(opened, user, "training_v1").items():
            if name != "user":
                same(value, trained.loc[user, name])


def test_a_late_event_arrives_and_the_live_row_stays(home: Path, store_client: redis.Redis) -> None:
    # One more event on the day of the user's last one changes the newest row, not its time.
    user = LOG[-1].user
    load_live(store_client, {user: LiveState(b"p", b"l", 3, "m", 5)})
    store.materialize(shop_log.START, AS_OF)
    opened = store.open_store()
    before = store.read_user(opened, user, "ranking_v1")
    assert (before["profile"], before["version"]) == (b"p", 3)
    shop_log.write(home, shop_log.copies(LOG[-1:], "late"), "late")
    snapshots.build(home, until=AS_OF, since=AS_OF)
    # the span begins after the changed row: only the overlap brings it
    tomorrow = AS_OF + timedelta(days=1)
    store.materialize(tomorrow, tomorrow)
    after = store.read_user(opened, user, "ranking_v1")
    assert after["num_events_7d"] == before["num_events_7d"] + 1
    assert (after["profile"], after["version"]) == (b"p", 3)


def test_the_live_view_cannot_be_materialized(home: Path) -> None:
    with pytest.raises(NotFoundError, match="no batch view"):
        store.materialize(shop_log.START, AS_OF, views=["live_state"])
    opened = store.open_store()
    with pytest.raises(LiveStateWriteError), store.quiet():
        opened.write_to_online_store(
            "live_state",
            pd.DataFrame(
                {
                    "user": [shop_log.USERS[0]], "event_timestamp": [pd.Timestamp(AS_OF)],
                    "created": [pd.Timestamp(AS_OF)], "profile": [b""], "learned": [b""],
                    "version": [1], "model": [""],
                }
            ),
        )  # fmt: skip


def test_progress_counts_rows(home: Path) -> None:
    told: list[tuple[str, int]] = []
    totals: dict[str, int] = {}

    def tell(view: str, rows: int, total: int) -> None:
        told.append((view, rows))
        totals[view] = total

    counts = store.materialize(shop_log.START, AS_OF, tell)
    assert {view for view, _ in told} == set(BATCH_VIEWS)
    assert dict(told) == totals == counts


def test_apply_again_changes_nothing_that_readers_see(home: Path) -> None:
    names = {v.name for v in store.open_store().list_feature_views()}
    store.apply()
    assert {v.name for v in store.open_store().list_feature_views()} == names


def test_an_unknown_user_has_nulls(home: Path) -> None:
    answer = store.read_user(store.open_store(), "{p000}" + "z" * 26)
    assert {v for k, v in answer.items() if k != "user"} == {None}


def test_missing_variables_are_named(monkeypatch: Any) -> None:
    monkeypatch.delenv("PORTRAIT_REDIS_URL", raising=False)
    with pytest.raises(InvalidSettingError, match="PORTRAIT_REDIS_URL"):
        store.open_store()
