"""Routes for whoever runs the service: health, metrics, models."""

import asyncio
import json
import time
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Query, Request
from prometheus_client import generate_latest
from starlette.responses import Response

from services.answers import answer, gateway
from services.lease import UPDATERS
from services.log import cursor_key, log_key, stream_id
from services.models import chosen
from services.state import GatewayState
from services.updater import STATS_KEY

router = APIRouter(tags=["operations"])


@router.get("/health/live")
async def live() -> Response:
    """Say that the process answers."""
    return answer({"status": "ok"})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Say whether events are taken and applied: 200, or 503 with what is missing."""
    state = gateway(request)
    checks = {"store": False, "updater": False}
    try:
        async with asyncio.timeout(0.8):
            checks["store"] = bool(await state.store.ping())
            checks["updater"] = bool(await state.store.zcard(UPDATERS))
    except (TimeoutError, redis.RedisError, OSError):
        pass
    fine = all(checks.values())
    body = {
        "status": "ok" if fine else "unavailable",
        "checks": checks,
        "model": None if state.model is None else state.model.version,
        "uptime_s": round(time.monotonic() - state.started_s, 1),
    }
    return answer(body, 200 if fine else 503, None if fine else {"retry-after": "1"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return this replica's numbers and the log's, in Prometheus form."""
    text = generate_latest(request.app.state.metrics.registry).decode()
    try:
        async with asyncio.timeout(0.8):
            text += await _log_metrics(gateway(request))
    except (TimeoutError, redis.RedisError, OSError):
        text += "# the store does not answer: no numbers of the log\n"
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _log_metrics(state: GatewayState) -> str:
    partitions = range(state.tenant.partitions)
    async with state.store.pipeline(transaction=False) as pipe:
        for partition in partitions:
            pipe.hmget(cursor_key(partition), "cursor", "archived")
            pipe.xrevrange(log_key(partition), count=1)
            pipe.xlen(log_key(partition))
        pipe.hgetall(STATS_KEY)
        pipe.zcard(UPDATERS)
        *found, stats, updaters = await pipe.execute()
    lag_ms, length = 0, 0
    for (cursor, _), newest, entries in zip(found[::3], found[1::3], found[2::3], strict=True):
        length += entries
        at = stream_id(cursor or b"0-0")
        if newest and stream_id(newest[0][0]) > at:
            lag_ms = max(lag_ms, round(time.time() * 1000) - max(at[0], stream_id(newest[0][0])[0]))
    lines = [
        ("portrait_log_entries", "gauge", length),
        ("portrait_updater_lag_seconds", "gauge", lag_ms / 1000),
        ("portrait_updaters", "gauge", updaters),
        ("portrait_events_applied_total", "counter", int(stats.get(b"events", 0))),
        ("portrait_events_dead_total", "counter", int(stats.get(b"dead", 0))),
    ]
    return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in lines)


@router.get("/v1/receipts", status_code=204)
async def wait_for_receipt(
    request: Request, after: Annotated[str, Query(max_length=65_536)]
) -> Response:
    """Answer 204 once everything up to the receipt is applied, in every partition it names."""
    state = gateway(request)
    partitions = set(range(state.tenant.partitions))
    await state.wait_applied(after, {f"{{p{p:03d}}}" for p in partitions})
    return Response(status_code=204)


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Return the models on disk and which one is in use."""
    state = gateway(request)
    found = await asyncio.to_thread(_models, state)
    return answer({"models": found, "in_use": state.recommender.version})


def _models(state: GatewayState) -> list[dict[str, Any]]:
    folder = state.settings.home / "models"
    paths = set(folder.iterdir()) if folder.is_dir() else set()
    named = chosen(state.settings)
    if named is not None:
        paths.add(named)
    found = []
    for path in sorted(paths):
        try:
            manifest = json.loads((path / "manifest.json").read_text())
        except (OSError, ValueError):
            continue
        version = manifest.get("version") or path.name
        found.append(
            {
                "name": path.name,
                "version": version,
                "in_use": state.model is not None and state.model.version == version,
                **{k: manifest[k] for k in ("recipe", "created_at", "cut_off") if k in manifest},
            }
        )
    return found
