"""The bench `api`: what every endpoint that answers costs on a shop as it really is.

On a copy of a demo's state folder, which has a trained model, a year of archive and a catalogue
much larger than the model's vocabulary. Each request stands beside a trivial one on one kept
connection: the first of its user or item (cold), then the same again (warm). With another
checkout a second service runs on a second copy, and the two are asked in turns. Belongs here:
those measurements. Not here: what is asked (`endpoints`).
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from feature_repo.errors import InvalidInputError
from services.client import Client
from services.demo.latency import percentiles
from services.hosting.embedded import free_port
from services.lab.bench.endpoints import Endpoint, ShopSample, endpoints_of, prepare
from services.lab.bench.http import Connection
from services.settings import Settings

SHARES: Final = (50, 95, 99)
COLD: Final = 24
"""Users or items of an endpoint, each asked for the first time once."""
WARM: Final = 120

Tell = Callable[[int, int, str], None]


def measure_api(
    tell: Tell,
    *,
    data: Path | None,
    before: Path | None = None,
    only: str = "",
    cold: int = COLD,
    warm: int = WARM,
) -> dict[str, Any]:
    """Measure every endpoint on copies of a state folder, which is only read.

    Parameters
    ----------
    data
        State folder of a demo; None: where `make demo` leaves it.
    before
        Another checkout, measured in turns.
    only
        Endpoints whose name has this in it.

    Returns
    -------
    dict
        By endpoint, in ``endpoints``; docs/performance.md defines the figures.
    """
    home = Path(".portrait/demo") if data is None else data
    if not (home / "replay.ndjson").exists():
        raise InvalidInputError(
            f"--data {home}: this is no demo's state folder (it has no replay.ndjson): "
            "run `make demo`, or name one"
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portrait-bench-")))
        clients = list[Client]()
        for code in (None, before)[: 1 if before is None else 2]:
            tell(0, 1, "the service" if code is None else f"the service of {code}")
            copy = folder / ("now" if code is None else "before")
            shutil.copytree(home, copy, symlinks=True)
            clients.append(stack.enter_context(_serving(copy, code)))
        sample = ShopSample.of(folder / "now")
        for client in clients:
            prepare(client)
        with Connection(clients[0]) as connection:
            description = orjson.loads(connection.call("GET", "/openapi.json"))
        chosen = [e for e in endpoints_of(description, sample, cold) if only in e.name]
        if not chosen:
            raise InvalidInputError(f"--only {only}: no endpoint's name has this in it")
        found = dict[str, dict[str, Any]]()
        for number, endpoint in enumerate(chosen):
            tell(number, len(chosen), endpoint.name)
            found[endpoint.name] = measure_endpoint(clients, endpoint, warm)
    return {
        "trivial_request_ms": median(each["trivial_ms"] for each in found.values()),
        "endpoints": dict(sorted(found.items(), key=lambda pair: -pair[1]["over_trivial"])),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
    }


def measure_endpoint(clients: Sequence[Client], endpoint: Endpoint, warm: int) -> dict[str, Any]:
    """Return an endpoint's figures at the first client, beside the second's if there is one."""
    rounds = max(1, warm // len(endpoint.requests))
    first, again = [[list[float]() for _ in clients] for _ in range(2)]
    trivial = list[float]()
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(client)) for client in clients]
        for connection in connections:
            connection.call("GET", "/health/live")
        for number in range(1 + rounds):
            kept = again if number else first
            for index, request in enumerate(endpoint.requests):
                order = range(len(connections))
                for each in order if (number + index) % 2 else reversed(order):
                    took = _time(connections[each], ("GET", "/health/live", None))
                    if each == 0:
                        trivial.append(took)
                    kept[each].append(_time(connections[each], request))
    floor = median(trivial)
    return {
        "first_ms": round(first[0][0], 3),
        "cold_ms": percentiles(first[0], SHARES),
        "warm_ms": percentiles(again[0], SHARES),
        "trivial_ms": round(floor, 3),
        "cold_over_trivial": round(median(first[0]) / floor, 2),
        "over_trivial": round(median(again[0]) / floor, 2),
        **(_beside(first, again) if len(clients) > 1 else {}),
    }


def _beside(first: Sequence[list[float]], again: Sequence[list[float]]) -> dict[str, Any]:
    """Return the other checkout's figures, and medians of the ratios of what was asked in turns."""
    return {
        "before_first_ms": round(first[1][0], 3),
        "before_cold_ms": percentiles(first[1], SHARES),
        "before_warm_ms": percentiles(again[1], SHARES),
        "cold_over_before": _ratio(*first),
        "over_before": _ratio(*again),
    }


def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return round(median(a / b for a, b in zip(ours, others, strict=True)), 3)


def _time(connection: Connection, request: tuple[str, str, bytes | None]) -> float:
    started_s = time.perf_counter()
    connection.call(*request)
    return (time.perf_counter() - started_s) * 1000


def _serving(home: Path, code: Path | None) -> Any:
    from services.hosting.serve import running

    settings = Settings(
        home=home, redis_url=None, port=free_port(), replay_clock=True, log_level="warning"
    )
    return running(settings, code=None if code is None else code.resolve())
