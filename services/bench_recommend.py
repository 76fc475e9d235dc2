"""`portrait bench recommend`: what a recommendation costs, beside a trivial request and a floor.

For each size of the shop, in one run on one machine: a service with a model over the shop
(`bench_shop`), shoppers with a history, and then requests one after another on one kept
connection, in turns with `/health/live` on the same; requests of 1, 16 and 64 clients at full
speed; and in a process of its own that does nothing else the floor: read the row and the
features with redis-py, the model's score, the best ten, as JSON bytes.
"""

import itertools
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from feature_repo.connection import connect as connect_store
from feature_repo.entity import Tenant
from feature_repo.live_row import FIELDS, parse_live, row_key
from services import catalogue
from services.bench import percentiles
from services.bench_http import Connection, post_batches
from services.bench_load import Load, body_of
from services.bench_shop import catalogue_of, feature_fields, shop_offers, write_model
from services.client import Client
from services.embedded import connect, free_port
from services.settings import Settings

SIZES: Final = (3_000, 100_000)
USERS: Final = 100
EVENTS: Final = 6_000
REQUESTS: Final = 600
WARM_UP: Final = 60
CLIENTS: Final = (1, 16, 64)
RPS_S: Final = 4.0

Tell = Callable[[int, int, str], None]


def measure_recommend(
    tell: Tell, *, sizes: Sequence[int] = SIZES, requests: int = REQUESTS, rps_s: float = RPS_S
) -> dict[str, Any]:
    """Measure recommendations and return the figures; nothing is left running or written.

    Returns
    -------
    dict
        Figures of the first size, and of each other size below ``sizes``; docs/performance.md
        defines them.
    """
    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
            found[size] = _measure(Path(folder), size, tell, requests, rps_s)
    first, *others = found.values()
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    return {
        **first, "sizes": {str(each["items"]): each for each in others}, "machine": machine
    }  # fmt: skip


def _measure(folder: Path, size: int, tell: Tell, requests: int, rps_s: float) -> dict[str, Any]:
    from services.serve import running

    tell(0, 5, f"{size:,} items: the shop")
    offered = shop_offers(size)
    model = write_model(offered, folder / "model")
    settings = Settings(
        home=folder, redis_url=None, port=free_port(), model=model, log_level="warning"
    )
    with ExitStack() as stack:
        url = stack.enter_context(connect(settings))
        store = connect_store(url, timeout_s=60)
        stack.callback(store.close)
        catalogue.load(store, catalogue_of(offered))
        tell(1, 5, f"{size:,} items: the service")
        served = settings.model_copy(update={"redis_url": url})
        client = stack.enter_context(running(served))
        load = Load(offered[:3000], users=USERS, seed="recommend")
        bodies = [body_of(load.batch(n, 500)) for n in range(EVENTS // 500)]
        client.wait_applied(post_batches(client, bodies, clients=2, tell=lambda *_: None).receipt)
        tenant = Tenant.load(folder, served.partitions)
        users = [load.user(n) for n in range(USERS)]
        fields = feature_fields()
        for user in users:
            store.hset(row_key(tenant.entity(user)), mapping=fields)
        time.sleep(3.0)  # popularity is written once a second and read every other one
        tell(2, 5, f"{size:,} items: single requests")
        single = _single(client, users, requests)
        tell(3, 5, f"{size:,} items: many clients")
        rps = {str(n): _rps(client, users, n, rps_s) for n in CLIENTS}
        tell(4, 5, f"{size:,} items: the floor")
        floor = floor_ms(store, tenant, users, model, requests)
    recommend, trivial = percentiles(single["recommend"]), percentiles(single["trivial"])
    lowest = median(floor)
    return {
        "items": size,
        "recommend_ms": recommend,
        "trivial_request_ms": trivial,
        "over_trivial": round(recommend["p50"] / trivial["p50"], 2),
        "rps": rps,
        "native_floor_ms": round(lowest, 3),
        "of_floor": round(recommend["p50"] / lowest, 2),
        "stage_ms": {
            name: round(median(values), 3)
            for name, values in single.items()
            if name not in ("recommend", "trivial")
        },
    }


def _single(client: Client, users: Sequence[str], requests: int) -> dict[str, list[float]]:
    """Return the times of trivial requests and recommendations in turns, and of their stages."""
    taken: dict[str, list[float]] = {"trivial": [], "recommend": []}
    with Connection(client) as connection:
        for number in range(-WARM_UP, requests):
            path = f"/v1/users/{users[number % len(users)]}/recommendations?n=10"
            for name, target in (("trivial", "/health/live"), ("recommend", path)):
                started_s = time.perf_counter()
                answer = connection.get(target)
                took_ms = (time.perf_counter() - started_s) * 1000
                if number >= 0:
                    taken[name].append(took_ms)
                    for stage, stage_ms in _stages(answer.headers.get("server-timing", "")):
                        taken.setdefault(stage, []).append(stage_ms)
    return taken


def _stages(header: str) -> list[tuple[str, float]]:
    """Return the milliseconds of each stage; ``app``, the whole of it, is no stage."""
    parts = [part.split(";dur=") for part in header.split(", ") if ";dur=" in part]
    return [(name, float(value)) for name, value in parts if name != "app"]


def _rps(client: Client, users: Sequence[str], clients: int, seconds: float) -> float:
    """Return recommendations a second of so many clients, each sending as soon as answered."""
    numbers, counts = itertools.count(), [0] * clients
    begin = threading.Barrier(clients)
    end_s = [0.0]

    def work(each: int) -> None:
        with Connection(client) as connection:
            connection.call("GET", "/health/live")
            begin.wait()
            end_s[0] = end_s[0] or time.perf_counter() + seconds
            while time.perf_counter() < end_s[0]:
                user = users[next(numbers) % len(users)]
                connection.call("GET", f"/v1/users/{user}/recommendations?n=10")
                counts[each] += 1

    with ThreadPoolExecutor(clients, thread_name_prefix="bench") as pool:
        for done in [pool.submit(work, each) for each in range(clients)]:
            done.result()
    return round(sum(counts) / seconds, 1)


def floor_ms(
    store: Any, tenant: Tenant, users: Sequence[str], model: Path, requests: int
) -> list[float]:
    """Return the times of the least that answers the same question, in this process."""
    import numpy as np
    import torch

    from training.model_dir import load
    from training.scoring import Scorer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = load(model)
    scorer, items = Scorer(loaded), loaded.vocabulary.items
    named = [*FIELDS, *feature_fields()]
    keys = [row_key(tenant.entity(user)) for user in users]
    taken = []
    for number in range(-WARM_UP, requests):
        started_s = time.perf_counter()
        values = store.hmget(keys[number % len(keys)], named)
        row = parse_live(values[: len(FIELDS)])
        assert row is not None
        scores = scorer.scores(row.learned, row.time_ms)
        best = np.argpartition(-scores, 9)[:10]
        best = best[np.argsort(-scores[best])]
        orjson.dumps([{"item_id": items[i], "score": float(scores[i])} for i in best])
        if number >= 0:
            taken.append((time.perf_counter() - started_s) * 1000)
    torch.set_num_threads(threads)
    return taken
