"""The bench `updates`: what an update costs, against a floor, Feast's push and a ping.

Everything is measured in one run, on one machine, with one embedded server, and ratios are
of figures of that run; docs/performance.md defines each. Belongs here: the order of the
measures and the result. The measures themselves are `rounds`'.
"""

import itertools
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Literal

from feature_repo.archive.event_archive import Archive
from feature_repo.online.connection import connect as connect_store
from services.demo.latency import percentiles
from services.hosting.embedded import connect, free_port
from services.lab.bench import rows
from services.lab.bench.load import Load
from services.lab.bench.rounds import LONG, SHORT, Rounds, Scale
from services.settings import Settings

Tell = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""


def measure_updates(
    *,
    model: Path | None = None,
    data: Path | None = None,
    tell: Tell = silent,
    scale: Scale | None = None,
) -> dict[str, Any]:
    """Measure the update path and return its figures; nothing is left running or written.

    Parameters
    ----------
    model
        Model directory; default: the newest of ``data``, else one with random weights.
    data
        State folder with an imported archive (only read); default: Complete Journey is
        imported into a temporary one.
    tell
        Told done, total and what.

    Returns
    -------
    dict
        The figures, named and defined in docs/performance.md, and ``details``: spreads,
        sizes by part, CPU time by part, the machine.
    """
    from services.lab.bench.model import archive_of, model_of, offers_of
    from services.models.loaded import load_transition
    from services.models.transition import Transition
    from training.network.model_dir import load

    scale, load_average = scale or Scale(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as name:
        folder = Path(name)
        archive = archive_of(data, folder, tell)
        path, label = model_of(model, data, archive, folder)
        settings = _settings(folder / "everysec", path, "everysec")
        learned = load_transition(settings)
        assert learned is not None
        offered = offers_of(load(path).vocabulary)
        bench = Rounds(scale, Load(offered, users=scale.users, seed="load"), learned, tell)
        with ExitStack() as stack:
            url = stack.enter_context(connect(settings))
            client = connect_store(url, timeout_s=60)
            stack.callback(client.close)
            served = bench.service(settings, client, folder)
            pushed = bench.feast(url, folder, served["row"])
            client.flushall()
            transition = Transition(learned)
            cost = bench.cost(client, transition)
            client.flushall()
            replayed = bench.replay(client, transition, Archive(folder / "replayed"))
        always = bench.acknowledged(_settings(folder / "always", path, "always"))
        users = None if scale.size_users is None else _first_users(archive, scale.size_users)
        sizes = rows.sizes(transition, archive, tell, users)
    return _result(served, pushed, cost, replayed, always, sizes) | {
        "details": {
            "model": label,
            "machine": {
                "cores": os.cpu_count(), "python": platform.python_version(),
                "load_average_before": round(load_average, 2),
            },
            "batch_events": scale.batch, "users": scale.users, "rounds": scale.rounds,
            "floor_batch_events": served["floor_batch"],
            "plain_floor_per_s": round(median(served["plain_floor"])),
            "of_plain_floor": round(median(served["applied"]) / median(served["plain_floor"]), 3),
            "spread": {
                "applied_per_s": _spread(served["applied"]),
                "floor_per_s": _spread(served["floor"]),
                "plain_floor_per_s": _spread(served["plain_floor"]),
                "feast_push_per_s": _spread(pushed),
                "ack_always_per_s": _spread(always),
                "ack_everysec_per_s": _spread(served["acknowledged"]),
                "replay_per_s": _spread(replayed),
            },
            "trivial_request_ms_p99": _percentile(served["trivial"], 99),
            "update_us": {str(n): round(median(us), 1) for n, us in cost.items()},
            "update_batch_users": scale.cost_users,
            "bytes_per_user": sizes,
            "put_off": served["put_off"],
            "where": served["where"],
        }
    }  # fmt: skip


def _result(
    served: dict[str, Any],
    pushed: Sequence[float],
    cost: dict[int, list[float]],
    replayed: Sequence[float],
    always: Sequence[float],
    sizes: dict[str, Any],
) -> dict[str, Any]:
    applied, floor = median(served["applied"]), median(served["floor"])
    push = median(pushed)
    event_ms = {f"p{n}": _percentile(served["event"], n) for n in (50, 99)}
    trivial_ms = _percentile(served["trivial"], 50)
    return {
        "applied_per_s": round(applied),
        "floor_per_s": round(floor),
        "of_floor": round(applied / floor, 3),
        "feast_push_per_s": round(push, 1),
        "over_feast_push": round(applied / push, 1),
        "cost_10000_over_10": round(rows.ratio(cost, LONG, SHORT), 3),
        "bytes_per_user_p95": sizes["bytes"]["p95"],
        "event_to_profile_ms": event_ms,
        "trivial_request_ms": {"p50": trivial_ms},
        "over_trivial_request": round(event_ms["p50"] / trivial_ms, 2),
        "ack_per_s": {
            "always": round(median(always)), "everysec": round(median(served["acknowledged"]))
        },
        "replay_per_s": round(median(replayed)),
    }  # fmt: skip


def _settings(home: Path, model: Path, durability: Literal["everysec", "always"]) -> Settings:
    return Settings(
        home=home, redis_url=None, api_key=None, host="127.0.0.1", port=free_port(), gateways=1,
        updaters=1, durability=durability, replay_clock=False, model=model, log_level="warning",
    )  # fmt: skip


def _first_users(archive: Archive, count: int) -> list[str]:
    return [user for user, _ in itertools.islice(archive.histories(), count)]


def _percentile(values: Sequence[float], share: int) -> float:
    return percentiles(values)[f"p{share}"]


def _spread(values: Sequence[float]) -> list[float]:
    return [round(min(values), 1), round(max(values), 1)]
