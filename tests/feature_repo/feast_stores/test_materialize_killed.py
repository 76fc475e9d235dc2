"""A materialize killed in the middle: reads go on, and the next one does the rest."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from feature_repo.feast_stores import store
from feature_repo.features import snapshots
from tests.feature_repo import shop_log
from tests.feature_repo.feast_stores.test_materialize import AS_OF
from tests.feature_repo.fixed_shop import LOG

DYING = """
import os
import signal
from feature_repo.feast_stores import store
from tests.feature_repo import shop_log
from tests.feature_repo.feast_stores.test_materialize import AS_OF

def told(view, rows, total):
    if rows:
        os.kill(os.getpid(), signal.SIGKILL)

store.materialize(shop_log.START, AS_OF, told)
"""


def test_a_materialize_that_is_killed_stops_no_reader(
    tmp_path: Path, redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"PORTRAIT_HOME": str(tmp_path), "PORTRAIT_REDIS_URL": redis_url}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shop_log.write(tmp_path, LOG)
    snapshots.build(tmp_path, until=AS_OF)
    store.apply()
    user = LOG[-1].user
    store.materialize(shop_log.START, AS_OF)
    before = store.read_user(store.open_store(), user, "ranking_v1")
    assert before["num_events_7d"] is not None
    paths = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    killed = subprocess.run(
        [sys.executable, "-c", DYING], env=os.environ | variables | paths, check=False
    )
    assert killed.returncode == -signal.SIGKILL

    assert marked()  # as it was left
    assert store.read_user(store.open_store(), user, "ranking_v1") == before
    store.materialize(shop_log.START, AS_OF)
    assert not marked()
    assert store.read_user(store.open_store(), user, "ranking_v1") == before


def marked() -> list[str]:
    """Return the views that the registry says are being materialized."""
    views = store.open_store().list_feature_views()
    return [view.name for view in views if view.state.name == "MATERIALIZING"]
