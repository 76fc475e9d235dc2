"""Routes for whoever runs the service: health and metrics."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Query, Request
from prometheus_client import generate_latest
from starlette.responses import PlainTextResponse, Response

from feature_repo.archive import valid_events
from services.analytics.cube import AnalyticsCube
from services.audiences.index import AudienceIndex
from services.context.answers import answer, context_of
from services.context.context import Context
from services.event_log.receipt import Receipt
from services.event_log.store_room import StoreRoom
from services.http import scopes
from services.http.answer_schemas import (
    LIVE,
    METRICS,
    READY,
    Live,
    Picture,
    Ready,
)
from services.models import row_counts
from services.models.row_counts import RowCounts
from services.recommend.serving import ServedModels
from services.update.health import Health, Probe

router = scopes.router("server", "operations")

MAX_LAG_S: Final = 30.0
"""An event that waits longer than this to be applied makes the service not ready."""
NEARLY_FULL: Final = 0.9
"""The service is not ready once a partition's log holds this share of its limit."""


@router.get("/health/live", responses=LIVE, dependencies=[scopes.needs("open")])
async def live() -> Response:
    """Say that the process answers."""
    body: Live = {"status": "ok"}
    return answer(body)


@router.get("/health/ready", responses=READY, dependencies=[scopes.needs("open")])
async def ready(request: Request) -> Response:
    """Say whether events are taken and applied: 200, or 503 with what is missing."""
    context = context_of(request)
    checks = readiness(
        await context.of(Probe).glance(), context.settings.lag_limit, draining=context.draining()
    )
    models = context.of(ServedModels)
    fine = all(check["ok"] for check in checks.values())
    body: Ready = {
        "status": "ok" if fine else "unavailable",
        "checks": checks,
        "degraded": list_degraded(context),
        "model": models.newest.version or None,
        "model_refused": models.refused,
        "uptime_s": round(time.monotonic() - context.started_s, 1),
    }
    return answer(body, 200 if fine else 503, None if fine else {"retry-after": "1"})


def list_degraded(context: Context) -> list[Picture]:
    """Return what answers from an older picture of the archive, for it cannot be renewed."""
    stale: dict[Picture, bool] = {
        "audiences": context.of(AudienceIndex).stale,
        "analytics": context.of(AnalyticsCube).stale,
    }
    return [name for name, is_stale in stale.items() if is_stale]


def readiness(health: Health, lag_limit: int, *, draining: bool) -> dict[str, dict[str, Any]]:
    """Return each check of readiness: whether it holds, and the values it goes by."""
    logs = health.partitions
    lag_s = max((each.lag_ms for each in logs), default=0) / 1000
    entries = max((each.entries for each in logs), default=0)
    leased = sum(each.leased for each in logs)
    return {
        "store": {"ok": health.error is None, "error": health.error, "took_ms": health.took_ms},
        "writes": {
            "ok": health.error is None and health.refusal is None,
            "refusal": health.refusal,
        },
        "lag": {
            "ok": health.error is None and lag_s <= MAX_LAG_S and entries < lag_limit * NEARLY_FULL,
            "seconds": lag_s,
            "max_seconds": MAX_LAG_S,
            "log_entries": entries,
            "lag_limit": lag_limit,
        },
        "leases": {
            "ok": health.error is None and leased == len(logs),
            "held": leased,
            "partitions": len(logs),
            "updaters": health.updaters,
        },
        "serving": {"ok": not draining, "draining": draining},
    }


@router.get("/metrics", response_class=PlainTextResponse, responses=METRICS)
async def metrics(request: Request) -> Response:
    """Return this replica's numbers and the log's, in Prometheus form."""
    context = context_of(request)
    own = await asyncio.to_thread(generate_latest, request.app.state.metrics.registry)
    text = own.decode() + archive_metrics(context)
    health = await context.of(Probe).look()
    if health.error is None:
        room = context.of(StoreRoom)
        text += log_metrics(health)
        text += (
            f"# TYPE portrait_store_memory_bytes gauge\nportrait_store_memory_bytes {room.used}\n"
        )
        text += "# TYPE portrait_store_memory_limit_bytes gauge\n"
        text += f"portrait_store_memory_limit_bytes {room.most}\n"
        text += model_metrics(await context.await_bounded(row_counts.read_async(context.store)))
    else:
        text += "# the store does not answer: no numbers of the log\n"
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def archive_metrics(context: Context) -> str:
    """Return how this replica reads the archive, in Prometheus form."""
    stale = list_degraded(context)
    text = "# TYPE portrait_archive_stale gauge\n# TYPE portrait_archive_odd_rows gauge\n"
    for name in ("audiences", "analytics"):
        text += f'portrait_archive_stale{{picture="{name}"}} {int(name in stale)}\n'
    for column in valid_events.COLUMNS:
        rows = context.of(AudienceIndex).odd.get(column, 0)
        text += f'portrait_archive_odd_rows{{column="{column}"}} {rows}\n'
    return text


def log_metrics(health: Health) -> str:
    """Return the numbers of the log in Prometheus form; worst partition where one is meant."""
    logs, stats = health.partitions, health.stats
    lines = [
        ("portrait_log_entries", "gauge", sum(each.entries for each in logs)),
        ("portrait_log_entries_worst", "gauge", max(each.entries for each in logs)),
        ("portrait_updater_lag_seconds", "gauge", max(each.lag_ms for each in logs) / 1000),
        ("portrait_archive_lag_seconds", "gauge", max(each.archive_lag_ms for each in logs) / 1000),
        ("portrait_updaters", "gauge", health.updaters),
        ("portrait_leases_held", "gauge", sum(each.leased for each in logs)),
        ("portrait_partitions", "gauge", len(logs)),
        ("portrait_store_writable", "gauge", int(health.refusal is None)),
        ("portrait_dead_letters", "gauge", sum(each.dead for each in logs)),
        ("portrait_events_applied_total", "counter", stats.get("events", 0)),
        ("portrait_events_dead_total", "counter", stats.get("dead", 0)),
        ("portrait_events_out_of_order_total", "counter", stats.get("late", 0)),
    ]
    return "".join(
        f"# TYPE {name} {metric_type}\n{name} {value}\n" for name, metric_type, value in lines
    )


def model_metrics(counts: Sequence[RowCounts]) -> str:
    """Return how many rows follow which model, in Prometheus form."""
    left, short = sum(each.left for each in counts), sum(each.short for each in counts)
    text = f"# TYPE portrait_model_rows_left gauge\nportrait_model_rows_left {left}\n"
    text += f"# TYPE portrait_model_rows_short gauge\nportrait_model_rows_short {short}\n"
    text += "# TYPE portrait_model_rows gauge\n"
    for version, rows in sorted(row_counts.add_up(counts).items()):
        text += f'portrait_model_rows{{model="{version}"}} {rows}\n'
    return text


@router.get("/v1/receipts", status_code=204)
async def wait_for_receipt(
    request: Request, after: Annotated[str, Query(max_length=65_536)]
) -> Response:
    """Answer 204 once everything up to the receipt is applied, in every partition it names."""
    context = context_of(request)
    partitions = set(range(context.pseudonyms.partitions))
    await context.await_receipt(Receipt.parse(after), partitions)
    return Response(status_code=204)
