"""Latencies of a service: single requests, one after another on one connection, after a warm-up."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from services.client import Client

WARM_UP: Final = 30

Tell = Callable[[int, int, str], None]


def percentiles(values_ms: Sequence[float], shares: Sequence[int] = (50, 99)) -> dict[str, float]:
    """Return p50 and p99 of a list of milliseconds, or other percentiles.

    Examples
    --------
    >>> percentiles([1.0, 2.0, 3.0])
    {'p50': 2.0, 'p99': 3.0}
    """
    ordered = sorted(values_ms)
    return {
        f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 3)
        for share in shares
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
