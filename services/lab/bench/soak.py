"""The bench `soak`: steady load for a while, and whether anything grows meanwhile.

Belongs here: the samples and the trends. Not here: the load (`traffic`), the picture
(`plots`).
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import redis

from feature_repo.online.connection import connect as connect_store
from services.client import ApiError, Client
from services.demo.latency import percentiles
from services.hosting.embedded import connect, free_port
from services.lab.bench.load import OfferedLoad, offers
from services.lab.bench.traffic import Traffic, TrafficRhythm
from services.lab.bench.where import processes
from services.settings import Settings

WARM_UP: Final = 0.1
"""Share of the samples, from the first, that no trend is taken of."""
BLOCKS: Final = 20
"""Neighbouring samples are alike; a trend is taken of the means of so many blocks."""

_MB: Final = 1 << 20

Tell = Callable[[int, int, str], None]


class Gauge:
    """Reads everything that could grow.

    Parameters
    ----------
    settings
        Of the running service.
    client
        Of the service.
    store
        Client of its store.
    """

    def __init__(self, settings: Settings, client: Client, store: Any) -> None:
        self._home = settings.home
        self._client = client
        self._store = store

    def sample(self) -> dict[str, float]:
        """Return one value a series, named ``<what> <whose or unit>``."""
        found = dict[str, float]()
        for role, members in processes().items():
            pss, rss, fds = 0.0, 0.0, 0.0
            for process in members:
                with contextlib.suppress(psutil.Error):
                    memory, open_files = process.memory_full_info(), process.num_fds()
                    pss, rss, fds = pss + memory.pss, rss + memory.rss, fds + open_files
            found |= {
                f"PSS {role}, MB": pss / _MB, f"RSS {role}, MB": rss / _MB, f"files {role}": fds
            }  # fmt: skip
        return found | self._of_service() | self._of_store() | self._of_disk()

    def _of_service(self) -> dict[str, float]:
        numbers = dict(
            line.rsplit(" ", 1)
            for line in self._client.metrics().splitlines()
            if line.startswith("portrait_") and "{" not in line
        )
        return {
            "lag, s": float(numbers.get("portrait_updater_lag_seconds", "nan")),
            "log entries": float(numbers.get("portrait_log_entries", "nan")),
        }

    def _of_store(self) -> dict[str, float]:
        keys = list(self._store.scan_iter(b"{p*}seen:*", count=5000))
        with self._store.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.memory_usage(key)
            ids = sum(size or 0 for size in pipe.execute())
        used = int(self._store.info("memory")["used_memory"])
        return {"known ids, MB": ids / _MB, "store without known ids, MB": (used - ids) / _MB}

    def _of_disk(self) -> dict[str, float]:
        note = self._home / "run" / "folder"
        folder = Path(note.read_text().partition(" ")[2]) if note.exists() else self._home / "run"
        logs = [*(self._home / "run").glob("*.log"), *folder.rglob("*.log")]
        return {
            "archive parts": float(sum(1 for _ in (self._home / "archive").rglob("*.parquet"))),
            "log files, MB": sum(_size(path) for path in logs) / _MB,
        }


def soak(
    *,
    minutes: float = 20.0,
    model: Path | None = None,
    plot: Path | None = None,
    every_s: float = 5.0,
    rhythm: TrafficRhythm | None = None,
    tell: Tell,
) -> dict[str, Any]:
    """Load a service started for the purpose and return how its use of everything went.

    Parameters
    ----------
    minutes
        Length of the load.
    model
        Model directory; absent: the service runs without a model.
    plot
        SVG file to draw.
    every_s
        Seconds between samples.
    tell
        Told seconds done, seconds in all and what.

    Returns
    -------
    dict
        ``trends``: by series ``first`` and ``last`` (means of the first and last tenth after
        the warm-up), ``max``, and ``per_hour`` with its 95 % interval; ``event_ms`` and
        ``recommendation_ms``; ``events``, ``failures``, ``samples``.
    """
    from services.hosting.serve import running

    samples, latencies = list[dict[str, float]](), dict[str, list[float]]()
    with tempfile.TemporaryDirectory(prefix="portrait-soak-") as folder, ExitStack() as stack:
        settings = Settings(
            home=Path(folder), redis_url=None, api_key=None, host="127.0.0.1", port=free_port(),
            model=model, log_level="warning",
        )  # fmt: skip
        tell(0, 0, "start the service")
        store = connect_store(stack.enter_context(connect(settings)), timeout_s=10)
        stack.callback(store.close)
        client = stack.enter_context(running(settings))
        traffic = Traffic(client, _offers(model), rhythm or TrafficRhythm())
        gauge = Gauge(settings, client, store)
        with traffic.flowing():
            begin_s = time.monotonic()
            while (passed_s := time.monotonic() - begin_s) < minutes * 60:
                time.sleep(min(every_s, minutes * 60 - passed_s))
                taken = traffic.fresh()
                with contextlib.suppress(ApiError, OSError, redis.RedisError):
                    samples.append(_row(time.monotonic() - begin_s, gauge.sample(), taken))
                for name, values in taken.items():
                    latencies.setdefault(name, []).extend(values)
                tell(round(passed_s), round(minutes * 60), f"s, {traffic.events:,} events")
    if plot is not None:
        from services.lab.bench.plots import soak as draw

        plot.parent.mkdir(parents=True, exist_ok=True)
        plot.write_text(draw(samples))
    return {
        "minutes": minutes, "samples": len(samples), "events": traffic.events,
        "events_per_s": round(traffic.events / (minutes * 60), 1), "failures": traffic.failures,
        "model": None if model is None else model.name,
        **{f"{name}_ms": percentiles(values) for name, values in latencies.items() if values},
        "trends": trends(samples),
    }  # fmt: skip


def _row(
    passed_s: float, gauged: Mapping[str, float], taken: Mapping[str, list[float]]
) -> dict[str, float]:
    row = {"seconds": passed_s, **gauged}
    for name, values in taken.items():
        if values:
            row |= {f"{name} {share}, ms": ms for share, ms in percentiles(values).items()}
    return row


def trends(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return the trend of every series after the warm-up.

    Examples
    --------
    >>> flat = [{"seconds": 36.0 * n, "x": 5.0 + n % 2, "y": n / 100} for n in range(100)]
    >>> found = trends(flat)
    >>> found["y"]["per_hour"], found["x"]["per_hour_95"][0] < 0 < found["x"]["per_hour_95"][1]
    (1.0, True)
    """
    kept = samples[round(len(samples) * WARM_UP) :]
    names = dict.fromkeys(name for row in kept for name in row if name != "seconds")
    found = dict[str, dict[str, Any]]()
    for name in names:
        rows = [
            (row["seconds"] / 3600, row[name]) for row in kept if np.isfinite(row.get(name, np.nan))
        ]
        if len(rows) >= 3:
            found[name] = _trend(*map(np.array, zip(*rows, strict=True)))
    return found


def _trend(hours: Any, values: Any) -> dict[str, Any]:
    from scipy import stats

    blocks = min(BLOCKS, len(hours))
    x = [part.mean() for part in np.array_split(hours, blocks)]
    y = [part.mean() for part in np.array_split(values, blocks)]
    line = stats.linregress(x, y)
    half = float(np.nan_to_num(stats.t.ppf(0.975, blocks - 2) * line.stderr))  # NaN: never moved
    tenth = max(1, len(values) // 10)
    return {
        "first": round(float(values[:tenth].mean()), 3),
        "last": round(float(values[-tenth:].mean()), 3),
        "max": round(float(values.max()), 3),
        "per_hour": round(float(line.slope), 3),
        "per_hour_95": [round(float(line.slope) - half, 3), round(float(line.slope) + half, 3)],
    }


def _offers(model: Path | None) -> list[OfferedLoad]:
    if model is None:
        return offers([f"item-{number}" for number in range(2000)])
    from services.lab.bench.model import offers_of
    from training.network.model_dir import load

    return offers_of(load(model).vocabulary)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
