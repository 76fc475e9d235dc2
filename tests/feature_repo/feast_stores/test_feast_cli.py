"""Feast's own command line works from the folder ``feature_repo``."""

import importlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import redis

from feature_repo.archive.event_archive import write_part
from feature_repo.features import snapshots
from feature_repo.online.live_row import LiveState, row_key
from feature_repo.online.live_rows import load_live, read_live
from tests.feature_repo import shop_log
from tests.feature_repo.fixed_shop import LOG

FOLDER = Path(__file__).parents[3] / "feature_repo"
AS_OF = shop_log.START + timedelta(days=120)


def feast(home: Path, url: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "feast"), *arguments],
        cwd=FOLDER,
        env={**os.environ, "PORTRAIT_HOME": str(home), "PORTRAIT_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_apply_list_materialize(tmp_path: Path, redis_url: str, store_client: redis.Redis) -> None:
    state = LiveState(b"p", b"l", 3, "m", 5)
    load_live(store_client, {shop_log.USERS[0]: state})
    shop_log.write(tmp_path, LOG)
    snapshots.build(tmp_path, until=AS_OF)
    # an offline row of the live view, newer than the live one: materialize must pass it by
    row = {
        "user": shop_log.USERS[0], "event_timestamp": AS_OF, "created": AS_OF,
        "profile": b"old", "learned": b"", "version": 1, "model": "",
    }  # fmt: skip
    table = pa.Table.from_pylist([row], schema=snapshots.schema("live_state"))
    write_part(tmp_path / "features" / "live_state" / "part.parquet", table)
    feast(tmp_path, redis_url, "apply")
    listed = feast(tmp_path, redis_url, "feature-views", "list")
    assert {"behaviour_7d", "profile", "item", "live_state"} <= set(listed.split())
    feast(
        tmp_path, redis_url, "materialize", f"{shop_log.START:%Y-%m-%dT%H:%M:%S}",
        f"{AS_OF:%Y-%m-%dT%H:%M:%S}",
    )  # fmt: skip
    fields = store_client.hkeys(row_key(shop_log.USERS[0]))
    assert {b"_ts:behaviour_7d", b"_ts:behaviour_28d", b"_ts:behaviour_91d", b"_ts:profile"} <= set(
        fields
    )
    assert read_live(store_client, [shop_log.USERS[0]]) == [state]
    # nothing but definitions.py is imported by apply, and no work is left in the folder
    assert not list(FOLDER.glob("*.db"))


def test_what_the_ui_imports_is_installed() -> None:
    """Feast's registry server, which `feast ui` reads through, asks for a package it lacks."""
    assert importlib.import_module("feast.ui_server")
    assert importlib.import_module("feast.registry_server")
