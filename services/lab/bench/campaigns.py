"""The bench `campaigns`: what a decision costs, beside a trivial request.

A service without a model, users who consent, and a campaign with a hold-out, quiet hours, two
caps and a budget. Then, one after another on one kept connection: a trivial request, a decision,
and the same decision again; then decisions of many clients at full speed, after which what was
spent is held against the answers. Belongs here: those measurements.
"""

import itertools
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import orjson

from services.client import Client
from services.demo.latency import percentiles
from services.hosting.embedded import connect, free_port
from services.lab.bench.http import Connection
from services.settings import Settings

USERS: Final = 500
REQUESTS: Final = 600
WARM_UP: Final = 60
CLIENTS: Final = (1, 16)
RPS_S: Final = 4.0
BUDGET: Final = 2_000
_DECIDE: Final = "/v1/campaigns/bench/decide"

Tell = Callable[[int, int, str], None]


def measure_campaigns(
    tell: Tell, *, requests: int = REQUESTS, rps_s: float = RPS_S, budget: int = BUDGET
) -> dict[str, Any]:
    """Measure decisions and return the figures; nothing is left running or written.

    Returns
    -------
    dict
        ``docs/performance.md`` defines the figures. ``over_budget`` is how many messages were
        sent beyond the budget: none.
    """
    from services.hosting.serve import running

    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        settings = Settings(
            home=Path(folder), redis_url=None, port=free_port(), log_level="warning"
        )
        with connect(settings) as url:
            served = settings.model_copy(update={"redis_url": url})
            tell(0, 3, "the service")
            with running(served) as client:
                users = _prepare(client, budget)
                tell(1, 3, "single requests")
                single = _single(client, users, requests)
                tell(2, 3, "many clients")
                rps = {str(n): _rps(client, users, n, rps_s) for n in CLIENTS}
                spent = client.campaigns.get("bench")["spent"]["messages"] or 0
    decide, trivial = percentiles(single["decide"]), percentiles(single["trivial"])
    return {
        "decide_ms": decide,
        "repeat_ms": percentiles(single["repeat"]),
        "trivial_request_ms": trivial,
        "over_trivial": round(decide["p50"] / trivial["p50"], 2),
        "decisions_per_s": rps,
        "messages": spent,
        "over_budget": max(0, spent - budget),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
    }


def _prepare(client: Client, budget: int) -> list[str]:
    """Make users who consent, an audience that they are in, and a campaign."""
    users = [f"user-{n}" for n in range(USERS)]
    events = [
        {"type": "view_item", "user_id": user, "id": user, "items": [{"item_id": "A"}],
         "consent": {"email": True}, "tz": "UTC"}
        for user in users
    ]  # fmt: skip
    client.wait_applied(client.post_batch(events)["receipt"])
    rule = {"rule": {"event": {"type": "view_item"}}, "consent": []}
    client.audiences.put("bench", rule)
    client.campaigns.put("bench", {
        "audience": "bench", "offer": {"id": "o", "cost": 0.05}, "channel": "email",
        "window": {"from": "2020-01-01", "until": "2099-01-01"},
        "caps": [{"most": 1000, "within": "1d"}, {"scope": "all", "most": 1000, "within": "7d"}],
        "quiet_hours": {"from": "03:00", "until": "03:01"}, "budget": {"messages": budget},
    })  # fmt: skip
    return users


def _body(user: str, number: int) -> bytes:
    return orjson.dumps({"user_id": user, "decision_id": f"d{number}", "tz": "UTC"})


def _single(client: Client, users: Sequence[str], requests: int) -> dict[str, list[float]]:
    """Return the times of trivial requests, decisions and repeats in turns, milliseconds."""
    taken: dict[str, list[float]] = {"trivial": [], "decide": [], "repeat": []}
    with Connection(client) as connection:
        for number in range(-WARM_UP, requests):
            body = _body(users[number % len(users)], number + WARM_UP)
            for name, method, path, sent in (
                ("trivial", "GET", "/health/live", None),
                ("decide", "POST", _DECIDE, body),
                ("repeat", "POST", _DECIDE, body),
            ):
                started_s = time.perf_counter()
                connection.call(method, path, sent)
                if number >= 0:
                    taken[name].append((time.perf_counter() - started_s) * 1000)
    return taken


def _rps(client: Client, users: Sequence[str], clients: int, seconds: float) -> float:
    """Return decisions a second of so many clients, each sending as soon as answered."""
    numbers, counts = itertools.count(10**6 * clients), [0] * clients
    begin = threading.Barrier(clients)

    def work(each: int) -> None:
        with Connection(client) as connection:
            connection.call("GET", "/health/live")
            begin.wait()
            end_s = time.perf_counter() + seconds
            while time.perf_counter() < end_s:
                number = next(numbers)
                connection.call("POST", _DECIDE, _body(users[number % len(users)], number))
                counts[each] += 1

    with ThreadPoolExecutor(clients, thread_name_prefix="bench") as pool:
        for done in [pool.submit(work, each) for each in range(clients)]:
            done.result()
    return round(sum(counts) / seconds, 1)
