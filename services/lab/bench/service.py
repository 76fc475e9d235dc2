"""What things cost: the service here, updates and soak through modules of their own.

The service's figures come from requests made one after another on one connection, after a
warm-up; ratios are against `/health/live` on the same service in the same run.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from services.client import Client
from services.hosting.embedded import free_port
from services.settings import Settings

WARM_UP = 30
REQUESTS = 500
BATCH_EVENTS = 500
BATCHES = 40
_JSON_ONLY = frozenset({"details", "trends", "sizes"})

Tell = Callable[[int, int, str], None]


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 of a list of milliseconds.

    Examples
    --------
    >>> percentiles([1.0, 2.0, 3.0])
    {'p50': 2.0, 'p99': 3.0}
    """
    ordered = sorted(values_ms)
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 3)
        for share in (50, 99)
    }


def latencies_ms(
    client: Client, requests: int, tell: Tell, items: Sequence[str] = ("A", "B", "C")
) -> dict[str, list[float]]:
    """Return the times of single requests: trivial, event with its profile, recommendation."""
    numbers = itertools.count()
    item = itertools.cycle(items)
    users = [f"bench-{index}" for index in range(20)]

    def event() -> None:
        number = next(numbers)
        body = {
            "type": "view_item", "id": f"bench-{number}", "user_id": users[number % len(users)],
            "items": [{"item_id": next(item)}],
        }  # fmt: skip
        client.post_event(body, return_profile=True)

    calls: dict[str, Callable[[], Any]] = {
        "trivial": client.live,
        "event to profile": event,
        "recommend": lambda: client.recommendations(users[next(numbers) % len(users)], n=10),
    }
    series: dict[str, list[float]] = {}
    for index, (name, call) in enumerate(calls.items()):
        for _ in range(WARM_UP):
            call()
        series[name] = []
        for done in range(requests):
            started = time.perf_counter()
            call()
            series[name].append((time.perf_counter() - started) * 1000)
            if done % 20 == 0:
                tell(index * requests + done, len(calls) * requests, name)
    return series


def applied_per_s(client: Client, tell: Tell) -> float:
    """Return events per second from the first batch until the last event is in its profile."""
    batches = [
        [
            {
                "type": "view_item", "id": f"load-{batch}-{index}",
                "user_id": f"load-{index % 200}",
                "items": [{"item_id": f"item-{(batch * 7 + index) % 500}"}],
            }
            for index in range(BATCH_EVENTS)
        ]
        for batch in range(BATCHES)
    ]  # fmt: skip
    started = time.perf_counter()
    for number, batch in enumerate(batches):
        receipt = client.post_batch(batch)["receipt"]
        tell(number, BATCHES, "batches")
    client.wait_applied(receipt)
    return BATCHES * BATCH_EVENTS / (time.perf_counter() - started)


def measure_service() -> dict[str, Any]:
    """Return latencies and throughput of a service without a model."""
    from services.hosting.serve import running
    from services.runtime.progress import step

    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        settings = Settings(home=Path(folder), redis_url=None, port=free_port())
        with ExitStack() as service:
            with step("start the service"):
                client = service.enter_context(running(settings))
            with step("single requests") as tell:
                series = latencies_ms(client, REQUESTS, tell)
            with step("batches") as tell:
                rate = applied_per_s(client, tell)
    result: dict[str, Any] = {
        f"{name.replace(' ', '_')}_ms": percentiles(values) for name, values in series.items()
    }
    trivial = result["trivial_ms"]["p50"]
    return result | {
        "event_over_trivial": round(result["event_to_profile_ms"]["p50"] / trivial, 2),
        "recommend_over_trivial": round(result["recommend_ms"]["p50"] / trivial, 2),
        "applied_per_s": round(rate),
    }


def table(result: Mapping[str, Any]) -> Table:
    """Return the figures as a table; what is nested deeper is only in the JSON."""
    rows = Table("figure", "value")
    for name, value in result.items():
        if name not in _JSON_ONLY:
            rows.add_row(name, _shown(value))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)
