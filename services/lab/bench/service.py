"""Cost of the service; updates and soak have modules of their own.

The service's figures come from requests made one after another on one connection, after a
warm-up; ratios are against `/health/live` on the same service in the same run.
"""

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table

from services.client import Client
from services.demo.latency import Tell, latencies_ms, percentiles
from services.hosting.embedded import free_port
from services.settings import Settings

REQUESTS = 500
BATCH_EVENTS = 500
BATCHES = 40
_JSON_ONLY = frozenset({"details", "trends", "sizes", "endpoints"})


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
            rows.add_row(name, _format(value))
    for name, each in result.get("endpoints", {}).items():
        shown = ", ".join(f"{k} {v}" for k, v in each.items() if not isinstance(v, Mapping))
        rows.add_row(name, shown)
    return rows


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)
