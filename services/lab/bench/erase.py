"""The bench `erase`: how long an erasure takes beside ingest, and what one more in a batch costs.

A made-up shop comes in over HTTP, each user with an anonymous id of their own. Then users are
erased while others go on: some one after another, then batches. Belongs here: that load and the
measuring. Not here: the traffic beside it (`traffic`).
"""

import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from feature_repo.archive.event_archive import Archive
from services.client import Client
from services.erasure import ledger
from services.hosting.embedded import free_port
from services.lab.bench.http import post_batches
from services.lab.bench.load import Load, body_of, offers
from services.lab.bench.traffic import Traffic, TrafficRhythm
from services.lab.bench.where import processes
from services.settings import Settings

Tell = Callable[[int, int, str], None]

_MB: Final = 1 << 20
_SAMPLE_S: Final = 0.5
_BATCH: Final = 500
_FILL_BATCHES: Final = 40
_LONGEST_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class EraseLoad:
    """How much there is, and who is erased.

    Attributes
    ----------
    events
        That come in before.
    per_user
        Events of a user, on average.
    singles
        Erasures of one user, one after another.
    batches
        Erasures of so many users, one each.
    """

    events: int = 150_000
    per_user: int = 50
    singles: int = 20
    batches: tuple[int, ...] = (1, 10, 100)

    @property
    def users(self) -> int:
        """All users: the first half go on, of the others some are erased."""
        return max(self.events // self.per_user, 4 * (self.singles + sum(self.batches)))


def measure_erase(tell: Tell, *, load: EraseLoad | None = None) -> dict[str, Any]:
    """Measure erasures and return the figures; nothing is left running or written.

    Returns
    -------
    dict
        See `measure_running`.
    """
    from services.hosting.serve import running

    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        settings = Settings(
            home=Path(folder), redis_url=None, port=free_port(), log_level="warning"
        )
        tell(0, 0, "start the service")
        with running(settings) as client:
            return measure_running(client, settings.home, load or EraseLoad(), tell)


def measure_running(client: Client, home: Path, load: EraseLoad, tell: Tell) -> dict[str, Any]:
    """Measure erasures of a running service of this state folder.

    Returns
    -------
    dict
        ``single_s``: seconds from the 202 to done, ``p50``, ``p95`` and ``max``; ``stages_s``:
        median and most of each stage; ``batch_s`` by users; ``one_more_s``: what a user of the
        largest batch adds to one alone; ``peak_mb``: most proportional memory by process,
        ``before_mb`` that before the first; ``events``, ``users``, ``archive_mb``,
        ``archive_parts``.
    """
    _fill(client, load, tell)
    people = iter(range(load.users - 1, load.users // 2, -1))
    before = _memory()
    traffic = Traffic(client, _offers(), TrafficRhythm(users=load.users // 2))
    with traffic.flowing(), _peaks() as peaks:
        singles, stages = list[float](), list[dict[str, float]]()
        for number in range(load.singles):
            tell(number, load.singles, "erasures")
            seconds, took = _erase(client, home, [next(people)])
            singles.append(seconds)
            stages.append(took)
        batches = dict[int, float]()
        for number, size in enumerate(load.batches):
            tell(number, len(load.batches), f"{size} users at once")
            batches[size] = _erase(client, home, [next(people) for _ in range(size)])[0]
    most = max(load.batches)
    one_s = median([*singles, *([batches[1]] if 1 in batches else [])])
    archive = [path.stat().st_size for path in Archive(home / "archive" / "events").parts()]
    return {
        "single_s": spread(singles),
        "stages_s": {
            name: {"p50": median(at), "max": max(at)}
            for name in stages[0]
            if (at := [each[name] for each in stages])
        },
        "batch_s": {str(size): seconds for size, seconds in batches.items()},
        "one_more_s": round((batches[most] - one_s) / max(1, most - 1), 4),
        "before_mb": before,
        "peak_mb": peaks,
        "events": load.events,
        "events_beside": traffic.events,
        "failures_beside": traffic.failures,
        "users": load.users,
        "archive_mb": round(sum(archive) / _MB, 1),
        "archive_parts": len(archive),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and the most, by nearest rank.

    Examples
    --------
    >>> spread([3.0, 1.0, 2.0])
    {'p50': 2.0, 'p95': 3.0, 'max': 3.0}
    """
    ordered = sorted(seconds)
    p50, p95 = (ordered[-(-len(ordered) * share // 100) - 1] for share in (50, 95))
    return {"p50": p50, "p95": p95, "max": ordered[-1]}


def _offers() -> list[Any]:
    return offers([f"item-{number}" for number in range(2000)])


def _fill(client: Client, load: EraseLoad, tell: Tell) -> None:
    """Send the shop's events and wait until they are applied."""
    shop = Load(_offers(), users=load.users, seed="shop")
    for start in range(0, load.events, _BATCH * _FILL_BATCHES):
        numbers = range(start, min(start + _BATCH * _FILL_BATCHES, load.events))
        events = [shop.event(n) for n in numbers]
        for event in events:
            event["anonymous_id"] = event["user_id"].replace("shopper", "visitor")
        bodies = [body_of(events[at : at + _BATCH]) for at in range(0, len(events), _BATCH)]
        posted = post_batches(client, bodies, clients=2, tell=lambda *_: None)
        client.wait_applied(posted.receipt)
        tell(start, load.events, "events")


def _erase(client: Client, home: Path, numbers: Sequence[int]) -> tuple[float, dict[str, float]]:
    """Erase users; return seconds from the 202 to done, and by stage."""
    begun = client.privacy.erase_all([f"shopper-{number}" for number in numbers])
    started_s = time.perf_counter()
    client.privacy.wait_erased(begun["erasure_id"], timeout_s=_LONGEST_S)
    taken_s = time.perf_counter() - started_s
    kept = ledger.read(home, begun["erasure_id"])
    assert kept is not None
    return round(taken_s, 2), kept.took_s


def _memory() -> dict[str, float]:
    found = dict[str, float]()
    for role, members in processes().items():
        for process in members:
            with suppress(psutil.Error):
                mb = process.memory_full_info().pss / _MB
                found[role] = round(found.get(role, 0.0) + mb, 1)
    return found


@contextmanager
def _peaks() -> Iterator[dict[str, float]]:
    """Yield what is, at the end of the block, the most memory that each kind of process had."""
    found, ended = dict[str, float](), threading.Event()

    def look() -> None:
        while not ended.wait(_SAMPLE_S):
            for role, mb in _memory().items():
                found[role] = max(mb, found.get(role, 0.0))

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
