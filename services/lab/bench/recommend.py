"""The bench `recommend`: what a recommendation costs, beside a trivial request and a floor.

For each size of the shop, in one run on one machine: a service with a model over the shop
(`shop`), users with a history, and then requests one after another on one kept
connection, in turns with `/health/live` on the same; requests of 1, 16 and 64 clients at full
speed; and in a process of its own that does nothing else the floor: read the row and the
features with redis-py, the model's score, the best ten, as JSON bytes. On request also many
requests in a row (drift), and other servers on the first shop (`peers`).
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

import numpy as np
import orjson

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.live_row import FIELDS, LiveState, parse_live, row_key
from services.catalogue import catalogue
from services.client import Client
from services.demo.latency import percentiles
from services.hosting.embedded import connect, free_port
from services.lab.bench.http import Connection, post_batches
from services.lab.bench.load import Load, OfferedLoad, body_of
from services.lab.bench.peers import Ask, measure_peers, pairs_of
from services.lab.bench.shop import catalogue_of, feature_fields, shop_offers, write_model
from services.recommend.retrieve import MANY_ITEMS
from services.settings import Settings

SIZES: Final = (3_000, 100_000)
USERS: Final = 100
EVENTS: Final = 6_000
REQUESTS: Final = 600
WARM_UP: Final = 60
CLIENTS: Final = (1, 16, 64)
RPS_S: Final = 4.0
DRIFT_REQUESTS: Final = 50_000
DRIFT_PART: Final = 1_000
RECALLED: Final = 100
_ROUNDING: Final = 1e-5

Tell = Callable[[int, int, str], None]


def measure_recommend(
    tell: Tell,
    *,
    sizes: Sequence[int] = SIZES,
    requests: int = REQUESTS,
    rps_s: float = RPS_S,
    drift: bool = False,
    peers: bool = False,
) -> dict[str, Any]:
    """Measure recommendations and return the figures; nothing is left running or written.

    Parameters
    ----------
    drift
        Also ask the first shop `DRIFT_REQUESTS` times in a row.
    peers
        Also install and measure the peers on the first shop.

    Returns
    -------
    dict
        Figures of the first size, and of each other size below ``sizes``; docs/performance.md
        defines them.
    """
    found = dict[int, dict[str, Any]]()
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
            many = DRIFT_REQUESTS if drift and not found else 0
            found[size] = _measure(Path(folder), size, tell, requests, rps_s, many)
    first, *others = found.values()
    if peers:
        tell(4, 5, "the peers")
        first["peers"] = _peers(sizes[0], first["rps"], rps_s)
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    return {
        **first, "sizes": {str(each["items"]): each for each in others}, "machine": machine
    }  # fmt: skip


def _measure(
    folder: Path, size: int, tell: Tell, requests: int, rps_s: float, many: int
) -> dict[str, Any]:
    from services.hosting.serve import running

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
        load, bodies = _load(offered)
        client.wait_applied(post_batches(client, bodies, clients=2, tell=lambda *_: None).receipt)
        pseudonyms = Pseudonyms.load(folder, served.partitions)
        users = [load.user(n) for n in range(USERS)]
        fields = feature_fields()
        for user in users:
            store.hset(row_key(pseudonyms.of_user(user)), mapping=fields)
        time.sleep(3.0)  # popularity is written once a second and read every other one
        tell(2, 5, f"{size:,} items: single requests")
        single = _single(client, users, requests)
        tell(3, 5, f"{size:,} items: many clients")
        rps = _rps_of(client, users, rps_s)
        trivial_rps = _rps_of(client, users, rps_s, _live)
        drift = _drift(client, users, many) if many else None
        tell(4, 5, f"{size:,} items: the floor")
        floor, search = floor_ms(store, pseudonyms, users, model, requests)
    recommend, trivial = percentiles(single["recommend"]), percentiles(single["trivial"])
    lowest = median(floor)
    return {
        "items": size,
        "recommend_ms": recommend,
        "trivial_request_ms": trivial,
        "over_trivial": round(recommend["p50"] / trivial["p50"], 2),
        "rps": rps,
        "trivial_rps": trivial_rps,
        "native_floor_ms": round(lowest, 3),
        "of_floor": round(recommend["p50"] / lowest, 2),
        "retrieval": search,
        **({} if drift is None else {"drift": drift}),
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


def _load(offered: list[OfferedLoad]) -> tuple[Load, list[bytes]]:
    """Return the users and the batches of their events."""
    load = Load(offered[:3000], users=USERS, seed="recommend")
    return load, [body_of(load.batch(n, 500)) for n in range(EVENTS // 500)]


def _peers(size: int, own: dict[str, float], rps_s: float) -> dict[str, Any]:
    """Return the peers' figures, and how many times their requests a second Portrait answers."""
    offered = shop_offers(size)
    load, bodies = _load(offered)
    users = [load.user(n) for n in range(USERS)]
    pairs = pairs_of(bodies, [offer.item_id for offer in offered])
    found = measure_peers(pairs, lambda client, ask: _rps_of(client, users, rps_s, ask))
    for each in found.values():
        each["portrait_over"] = {n: round(own[n] / rate, 2) for n, rate in each["rps"].items()}
    return found


def _drift(client: Client, users: Sequence[str], requests: int) -> dict[str, Any]:
    """Return the medians of the first and the last part of many requests, trivial ones beside."""
    ends = [list[float](), list[float]()], [list[float](), list[float]()]
    with Connection(client) as connection:
        for number in range(-WARM_UP, requests):
            path = f"/v1/users/{users[number % len(users)]}/recommendations?n=10"
            last = number >= requests - DRIFT_PART
            kept = 0 <= number < DRIFT_PART or last
            for index, target in enumerate((path, "/health/live") if kept else (path,)):
                started_s = time.perf_counter()
                connection.get(target)
                if kept:
                    ends[last][index].append((time.perf_counter() - started_s) * 1000)
    first, end = [[round(median(each), 3) for each in part] for part in ends]
    return {
        "requests": requests, "first_ms": first[0], "last_ms": end[0],
        "ratio": round(end[0] / first[0], 3), "trivial_ratio": round(end[1] / first[1], 3),
    }  # fmt: skip


def _recommend(connection: Connection, user: str) -> None:
    connection.call("GET", f"/v1/users/{user}/recommendations?n=10")


def _live(connection: Connection, user: str) -> None:
    del user
    connection.call("GET", "/health/live")


def _rps_of(
    client: Client, users: Sequence[str], seconds: float, ask: Ask = _recommend
) -> dict[str, float]:
    return {str(n): _rps(client, users, n, seconds, ask) for n in CLIENTS}


def _rps(
    client: Client, users: Sequence[str], clients: int, seconds: float, ask: Ask = _recommend
) -> float:
    """Return recommendations a second of so many clients, each sending as soon as answered."""
    numbers, counts = itertools.count(), [0] * clients
    begin = threading.Barrier(clients)
    end_s = [0.0]

    def work(each: int) -> None:
        with Connection(client) as connection:
            ask(connection, users[each % len(users)])
            begin.wait()
            end_s[0] = end_s[0] or time.perf_counter() + seconds
            while time.perf_counter() < end_s[0]:
                ask(connection, users[next(numbers) % len(users)])
                counts[each] += 1

    with ThreadPoolExecutor(clients, thread_name_prefix="bench") as pool:
        for done in [pool.submit(work, each) for each in range(clients)]:
            done.result()
    return round(sum(counts) / seconds, 1)


def floor_ms(
    store: Any, pseudonyms: Pseudonyms, users: Sequence[str], model: Path, requests: int
) -> tuple[list[float], dict[str, float]]:
    """Return the times of the least that answers the same question, in this process.

    And what the search for the best of very many items takes (`services.recommend.retrieve`), and
    its recall of the best hundred by the scores of all.
    """
    import torch

    from training.network.model_dir import load
    from training.scoring.scorer import Scorer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = load(model)
    scorer, items = Scorer(loaded), loaded.vocabulary.items
    named = [*FIELDS, *feature_fields()]
    keys = [row_key(pseudonyms.of_user(user)) for user in users]
    taken, rows = [], list[LiveState]()
    for number in range(-WARM_UP, requests):
        started_s = time.perf_counter()
        values = store.hmget(keys[number % len(keys)], named)
        row = parse_live(values[: len(FIELDS)])
        assert row is not None
        best, scores = _ten(scorer, row, len(items))
        orjson.dumps(
            [{"item_id": items[i], "score": float(s)} for i, s in zip(best, scores, strict=True)]
        )
        if number >= 0:
            taken.append((time.perf_counter() - started_s) * 1000)
            rows.append(row)
    search = _search(scorer, rows[: len(keys)])
    torch.set_num_threads(threads)
    return taken, search


def _ten(scorer: Any, row: LiveState, items: int) -> tuple[Any, Any]:
    """Return the best ten items and their scores, in whichever way is quicker."""
    if items > MANY_ITEMS:
        best, scores = scorer.ask(row.learned, row.time_ms).best(10)
        return best, scores
    scores = scorer.scores(row.learned, row.time_ms)
    best = np.argpartition(-scores, 9)[:10]
    best = best[np.argsort(-scores[best])]
    return best, scores[best]


def _search(scorer: Any, rows: Sequence[LiveState]) -> dict[str, float]:
    taken, found = [], 0
    for row in rows:
        query = scorer.ask(row.learned, row.time_ms)
        started_s = time.perf_counter()
        best, _ = query.best(RECALLED)
        taken.append((time.perf_counter() - started_s) * 1000)
        scores = scorer.scores(row.learned, row.time_ms)
        least = np.partition(scores, len(scores) - RECALLED)[len(scores) - RECALLED]
        found += int((scores[best] >= least - _ROUNDING * abs(least)).sum())
    return {
        "ms": round(median(taken), 3), "recall_at_100": round(found / len(rows) / RECALLED, 4)
    }  # fmt: skip
