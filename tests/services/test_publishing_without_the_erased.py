"""Files of people put down after an erasure, from what was read before it: without the erased."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from erasure_search import search

from feature_repo.archive.event_archive import Archive, LogPosition, write_part
from feature_repo.audiences.index import PROPENSITIES
from feature_repo.erasure import tombstones
from feature_repo.events.schema import EventRecord
from feature_repo.features import snapshots
from services.audiences import clusters, propensities
from services.event_log.archiver import Archiver
from services.rebuild.run import _publish
from services.settings import Settings
from training.history import dataset
from training.history.prepare import read_histories

USERS = [f"{{p003}}{letter * 26}" for letter in "abc"]
DAY_MS = 86_400_000


def _event(number: int, user: str, linked: str | None = None) -> EventRecord:
    return EventRecord(
        id=f"e{number}", type="purchase", user=user, time_ms=number * DAY_MS, received_ms=0,
        order_id=f"o{number}", value=3.0, linked=linked,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder whose archive still has the first user, who is erased."""
    home = tmp_path / "home"
    entries = [(LogPosition.imported(n * DAY_MS), _event(n, USERS[n % 3])) for n in range(30)]
    Archive(home / "archive" / "events").append("import-s", entries)
    tombstones.add(home, USERS[:1])
    return home


def _names(home: Path, folder: str) -> set[str]:
    return {user for user in USERS if search(home / folder, [user])}


def test_features_and_training_sets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _names(home, "archive") == set(USERS)
    until = datetime(1970, 1, 20, tzinfo=UTC)
    snapshots.build(home, until=until)
    assert _names(home, "features") == set(USERS[1:])
    monkeypatch.setattr(dataset, "point_in_time", lambda home, found, **_: found)
    rows = dataset.build(home, as_of=until, out=home / "sets" / "train.parquet")
    assert _names(home, "sets") == set(USERS[1:])
    assert rows == pq.read_metadata(home / "sets" / "train.parquet").num_rows
    assert {user for user, _ in read_histories(home)} == set(USERS[1:])


def test_clusters_scores_and_snapshots_of_a_rebuild(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters._write(home, USERS, np.array([1, 2, 1]), [], 0)
    assert _names(home, "audiences") == set(USERS[1:])

    class Scored:
        model = None
        version = ""

        def __getattr__(self, name: str) -> Any:
            return lambda *_: {"purchase_7d": (0.5, None)}

    scored = Scored()
    scored.model = scored  # type: ignore[assignment]
    monkeypatch.setattr(propensities, "load_scorer", lambda *_: scored)
    rows = [(index, b"", None) for index in range(3)]
    monkeypatch.setattr(propensities, "read_learned", lambda *_: iter(rows))
    settings = Settings(home=home)
    assert propensities.refresh_propensities(settings, "", now_ms=0, tell=print) == 2
    assert pq.read_schema(home / "audiences" / "chances.parquet").equals(PROPENSITIES)
    assert _names(home, "audiences") == set(USERS[1:])

    folder = home / "features" / ".rebuild-1"
    write_part(folder / "00000000.parquet", pa.table({"user": USERS}))
    with tombstones.publishing(home) as erased, monkeypatch.context() as patch:
        patch.setattr("services.rebuild.run.SNAPSHOT", pa.schema([("user", pa.string())]))
        _publish(folder, home / "features" / "live_state", erased)
    assert _names(home, "features/live_state") == set(USERS[1:])


def test_an_archiver_that_had_read_them(tmp_path: Path, store_client: Any) -> None:
    from services.event_log.keys import cursor_key, log_key

    archive = Archive(tmp_path / "home" / "archive" / "events")
    for number, (user, linked) in enumerate([(USERS[0], None), (USERS[1], USERS[0])], 1):
        body = {b"e": _event(number, user, linked).encode()}
        last = store_client.xadd(log_key(3), body, id=f"{number}-0")
    store_client.hset(cursor_key(3), "cursor", last)
    tombstones.add(tmp_path / "home", USERS[:1])
    Archiver(store_client, archive).run([3])
    assert [(user, [e.linked for e in events]) for user, events in archive.histories()] == [
        (USERS[1], [None])
    ]
    assert store_client.xlen(log_key(3)) <= 1
