"""Reading the live view as a Feast client does, from a store of any kind."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from feast import RepoConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.feast_stores.online import PortraitOnlineStore
from feature_repo.features.catalogue import VIEWS

_READ = """
import sys, orjson
from pathlib import Path
from services.settings import Settings
from feature_repo.feast_stores import store

url, home, *users = sys.argv[1:]
settings = Settings(home=Path(home), redis_url=url)
settings.export(url)
store.apply()
answer = store.open_store().get_online_features(
    features=["live_state:version", "live_state:model"],
    entity_rows=[{"user": user} for user in users],
).to_dict()
print(orjson.dumps(answer).decode())
"""


def feast_versions(url: str, users: Sequence[str]) -> list[int | None]:
    """Return the live rows' versions, read by Feast's online store as we configure it."""
    config = RepoConfig(
        project="portrait", provider="local", registry="unused.db",
        online_store={
            "type": "feature_repo.feast_stores.online.PortraitOnlineStore",
            "connection_string": url,
        },
        entity_key_serialization_version=3,
    )  # fmt: skip
    table = SimpleNamespace(
        name="live_state", features=[SimpleNamespace(name=f.name) for f in VIEWS["live_state"]],
        tags={}, projection=SimpleNamespace(version_tag=None), current_version_number=None,
    )  # fmt: skip
    keys = [EntityKey(join_keys=["user"], entity_values=[Value(string_val=u)]) for u in users]
    store = PortraitOnlineStore()
    try:
        found = store.online_read(config, table, keys)
        return [
            values["version"].int64_val
            if values and values["version"].WhichOneof("val") is not None
            else None
            for _, values in found
        ]
    finally:
        store._client.close()


def feast_sdk_versions(url: str, home: Path, users: Sequence[str]) -> list[Any]:
    """Return the same by the whole SDK, in a process of its own (the settings are global)."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, url, str(home), *users], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found: dict[str, list[Any]] = orjson.loads(done.stdout.splitlines()[-1])
    return found["version"]
