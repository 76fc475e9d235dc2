"""Cost of an update through Feast's SDK alone: get the online features, push the new row.

A throw-away project with one view of the live row's shape in a temporary registry, on the
server that the service uses; the product's own view refuses plain writes.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from feature_repo.feast_stores.store import quiet
from feature_repo.online.live_row import LiveState

PROJECT: Final = "portraitbench"
VIEW: Final = "pushed_state"
_SOURCE: Final = "pushed_rows"


class FeastPush:
    """Updates rows by the SDK.

    Parameters
    ----------
    folder
        For the registry; temporary.
    url
        ``redis://`` URL of the server.
    """

    def __init__(self, folder: Path, url: str) -> None:
        from feast import FeatureStore, RepoConfig
        from redis.connection import parse_url

        at = parse_url(url)
        password = f",password={at['password']}" if at.get("password") else ""
        with quiet():
            self.store = FeatureStore(
                config=RepoConfig(
                    project=PROJECT,
                    provider="local",
                    registry=str(folder / "registry.db"),
                    offline_store={"type": "duckdb"},
                    online_store={
                        "type": "redis",
                        "connection_string": f"{at['host']}:{at['port']}{password}",
                    },
                    entity_key_serialization_version=3,
                )
            )
            self._service = self._define(folder)
        self._at = datetime.now(UTC)

    def run(self, users: Sequence[str], row: LiveState, tell: Callable[[int, int, str], None]
            ) -> float:  # fmt: skip
        """Update one user after the other and return events per second.

        Parameters
        ----------
        users
            One an event.
        row
            What is pushed, its version counted up from what was read.
        """
        started_s = time.perf_counter()
        for done, user in enumerate(users):
            self.update(user, row)
            if done % 20 == 0:
                tell(done, len(users), "Feast pushes")
        return len(users) / (time.perf_counter() - started_s)

    def update(self, user: str, row: LiveState) -> int:
        """Get a user's row, push the next one and return its version."""
        import pandas as pd
        from feast.data_source import PushMode

        version = (self.read(user)["version"] or 0) + 1
        self._at += timedelta(milliseconds=1)  # Feast drops a row of equal time
        frame = pd.DataFrame(
            [
                {
                    "user": user, "event_timestamp": self._at, "profile": row.profile,
                    "learned": row.learned, "version": version, "model": row.model,
                }
            ]
        )  # fmt: skip
        self.store.push(_SOURCE, frame, to=PushMode.ONLINE)
        return version

    def read(self, user: str) -> dict[str, Any]:
        """Return a user's features; None where there is no row."""
        answer = self.store.get_online_features(
            features=self._service, entity_rows=[{"user": user}]
        ).to_dict()
        return {name: values[0] for name, values in answer.items()}

    def _define(self, folder: Path) -> Any:
        from feast import (
            Entity,
            FeatureService,
            FeatureView,
            Field,
            FileSource,
            PushSource,
            ValueType,
        )
        from feast.data_format import ParquetFormat
        from feast.types import Bytes, Int64, String

        user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
        parts = FileSource(
            name="parts", path=str(folder / "rows.parquet"), file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
        )  # fmt: skip
        types = {
            "user": String, "profile": Bytes, "learned": Bytes, "version": Int64, "model": String
        }  # fmt: skip
        view = FeatureView(
            name=VIEW,
            entities=[user],
            schema=[Field(name=name, dtype=dtype) for name, dtype in types.items()],
            source=PushSource(name=_SOURCE, batch_source=parts),
            ttl=timedelta(0),
        )
        self.store.apply([user, view, FeatureService(name="pushed_v1", features=[view])])
        return self.store.get_feature_service("pushed_v1")
