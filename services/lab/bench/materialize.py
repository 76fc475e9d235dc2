"""The bench `materialize`: feature tables into the online store, against Feast's own way.

The same Parquet parts, the same definitions, the same embedded server: once by
`feast_stores.store.materialize`, once by Feast's local engine and Feast's Redis store. Both
include reading the parts, finding the newest rows and the registry's bookkeeping.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa

from feature_repo.archive.event_archive import write_part
from feature_repo.feast_stores import store
from feature_repo.features import snapshots
from feature_repo.features.catalogue import VIEWS, Feature
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.live_row import PROJECT
from services.hosting.embedded import connect, free_port
from services.settings import Settings

Tell = Callable[[int, int, str], None]

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
END: Final = START + timedelta(days=30)
LONGEST_LIST: Final = {"hour_histogram": 24, "weekday_histogram": 7}
_LETTERS: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)


@dataclass(frozen=True)
class MaterializeLoad:
    """How much is loaded.

    Attributes
    ----------
    views
        Batch views.
    rows
        Entities of each view, one row each.
    rounds
        How often each way is measured.
    """

    views: Sequence[str] = ("behaviour_28d", "profile", "item")
    rows: int = 30_000
    rounds: int = 3


def measure_materialize(*, tell: Tell, load: MaterializeLoad | None = None) -> dict[str, Any]:
    """Measure both ways and return their figures; nothing is left running or written.

    Returns
    -------
    dict
        ``rows_per_s`` and ``feast_local_rows_per_s`` (medians, from an empty store),
        ``again_rows_per_s`` (over rows that are there), ``ratio``, and ``details``.

    Raises
    ------
    RuntimeError
        If the two ways left different bytes.
    """
    load = load or MaterializeLoad()
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as name:
        home = Path(name)
        settings = Settings(home=home, redis_url=None, api_key=None, port=free_port())
        tell(0, 0, "making feature tables")
        for number, view in enumerate(load.views):
            write_part(
                home / "features" / view / "base.parquet", random_table(view, load.rows, number)
            )
        snapshots.prepare(home)
        with connect(settings) as url:
            settings.export(url)
            store.apply()
            client = connect_store(url, timeout_s=60)
            try:
                return _measure(load, url, client, tell)
            finally:
                client.close()


def _measure(load: MaterializeLoad, url: str, client: Any, tell: Tell) -> dict[str, Any]:
    feast = feast_store(url)
    ours, again, theirs = list[float](), list[float](), list[float]()
    # In turns, so that a machine that slows down slows both.
    for done in range(load.rounds):
        tell(2 * done, 2 * load.rounds, "Feast's local engine")
        client.flushall()
        theirs.append(_per_s(load, lambda: _by_feast(feast, load.views)))
        expected = _contents(client)
        tell(2 * done + 1, 2 * load.rounds, "from Arrow columns")
        client.flushall()
        ours.append(_per_s(load, lambda: store.materialize(START, END, views=load.views)))
        if _contents(client) != expected:
            raise RuntimeError("the two ways left different rows in the store")
        again.append(_per_s(load, lambda: store.materialize(START, END, views=load.views)))
    return {
        "rows_per_s": round(median(ours)),
        "feast_local_rows_per_s": round(median(theirs)),
        "ratio": round(median(ours) / median(theirs), 2),
        "again_rows_per_s": round(median(again)),
        "rows": load.rows * len(load.views),
        "details": {
            "views": {view: len(VIEWS[view]) for view in load.views},
            "spread": {
                "rows_per_s": [round(min(ours)), round(max(ours))],
                "feast_local_rows_per_s": [round(min(theirs)), round(max(theirs))],
                "again_rows_per_s": [round(min(again)), round(max(again))],
            },
        },
    }


def feast_store(url: str) -> Any:
    """Return Feast's store on the same registry and parts, with Feast's own engine and Redis."""
    from feast import FeatureStore, RepoConfig
    from redis.connection import parse_url

    at, ours = parse_url(url), store.open_store().config
    password = f",password={at['password']}" if at.get("password") else ""
    with store.quiet():
        return FeatureStore(
            config=RepoConfig(
                project=PROJECT,
                provider="local",
                registry=ours.registry,
                offline_store={"type": "duckdb"},
                batch_engine={"type": "local"},
                online_store={
                    "type": "redis",
                    "connection_string": f"{at['host']}:{at['port']}{password}",
                },
                materialization=ours.materialization_config.model_dump(),
                entity_key_serialization_version=3,
            )
        )


def random_table(view: str, rows: int, seed: int) -> pa.Table:
    """Return a table of a view with one row for each of ``rows`` entities."""
    generator = np.random.default_rng(seed)
    schema = snapshots.schema(view)
    days = generator.integers(0, (END - START).days, rows)
    moments = pa.array((START + timedelta(days=int(day)) for day in days), schema.field(1).type)
    letters = _LETTERS[generator.integers(0, 32, (rows, 26))]
    prefix = "item-{}" if view == "item" else "{{p{:03d}}}"
    keys = [
        prefix.format(number if view == "item" else number % 16) + text.tobytes().decode()
        for number, text in enumerate(letters)
    ]
    columns = [_random(feature, rows, generator) for feature in VIEWS[view]]
    return pa.table([pa.array(keys), moments, moments, *columns], schema=schema)


def _random(feature: Feature, rows: int, generator: np.random.Generator) -> pa.Array:
    missing = generator.random(rows) < 0.05
    if feature.dtype == "int":
        return pa.array(generator.integers(0, 500, rows), mask=missing)
    if feature.dtype == "float":
        return pa.array(generator.gamma(2.0, 10.0, rows), mask=missing)
    words = np.array([f"Department/Aisle {n}" for n in range(200)])
    if feature.dtype == "str":
        return pa.array(words[generator.integers(0, 200, rows)], mask=missing)
    fixed = LONGEST_LIST.get(feature.name)
    lengths = np.full(rows, fixed) if fixed else generator.integers(0, 11, rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    count = int(lengths.sum())
    flat = (
        words[generator.integers(0, 200, count)]
        if feature.dtype == "list[str]"
        else generator.random(count)
    )
    return pa.ListArray.from_arrays(offsets, pa.array(flat))


def _by_feast(feast: Any, views: Sequence[str]) -> None:
    try:
        for view in views:
            with store.quiet():
                feast.materialize(
                    START - timedelta(days=store.OVERLAP_DAYS), END, feature_views=[view]
                )
    finally:
        store.close_offline()


def _per_s(load: MaterializeLoad, work: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    work()
    return load.rows * len(load.views) / (time.perf_counter() - started_s)


def _contents(client: Any) -> dict[bytes, dict[bytes, bytes]]:
    keys = sorted(client.scan_iter(count=1_000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        return dict(zip(keys, pipe.execute(), strict=True))
