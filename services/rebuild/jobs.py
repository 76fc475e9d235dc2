"""Pieces of a rebuild and where they run: in this process, or on Ray when there are many.

A job can run anywhere that reaches the store and the state folder, and can be run again: its
rows replace live ones only as `refold` allows.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import tenacity

from feature_repo.archive.event_archive import Archive
from feature_repo.archive.part_set import write_part
from feature_repo.errors import PortraitError, StoreUnavailableError
from feature_repo.online.connection import connect
from feature_repo.online.live_row import LiveState
from services.models import loaded
from services.models.transition import Transition
from services.rebuild.refold import refold
from services.settings import Settings
from training.fit import local_ray

INLINE_USERS: Final = 400
"""Up to so many users one process is quicker than starting Ray."""
QUEUED: Final = 3
"""Jobs handed out for each processor: none is idle, and little is redone after a crash."""
TIMEOUT_S: Final = 30.0
_OBJECT_STORE_BYTES: Final = 100 * 1024 * 1024

SNAPSHOT: Final = pa.schema(
    [
        ("user", pa.string()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("created", pa.timestamp("us", tz="UTC")),
        ("profile", pa.binary()),
        ("learned", pa.binary()),
        ("version", pa.int64()),
        ("model", pa.string()),
    ]
)
"""Columns of the live view in the offline store."""


@dataclass(frozen=True, slots=True)
class Job:
    """Some users of one partition.

    Attributes
    ----------
    settings
        The settings as JSON.
    url
        URL of the store.
    snapshot
        File for the rows made.
    """

    settings: str
    url: str
    partition: int
    users: tuple[str, ...]
    snapshot: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job: users looked at, rows written, and who was left as they were."""

    users: int
    written: int
    short: list[str]


def results(jobs: Sequence[Job]) -> Iterator[Result]:
    """Run the jobs and yield their results as they come.

    Raises
    ------
    PortraitError
        What a job raised, or that its process died several times over.
    """
    if sum(len(job.users) for job in jobs) <= INLINE_USERS:
        yield from map(run, jobs)
    else:
        with _ray() as processors:
            yield from _on_ray(jobs, processors)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(StoreUnavailableError),
    stop=tenacity.stop_after_attempt(5),
    wait=tenacity.wait_fixed(1),
    reraise=True,
)
def run(job: Job) -> Result:
    """Run one job here; a store that is away for a moment is waited for.

    Raises
    ------
    StoreUnavailableError
        If it stays away.
    """
    home, transition, keep_s = _transition(job.settings)
    client = connect(job.url, timeout_s=TIMEOUT_S)
    try:
        archive = Archive(home / "archive" / "events")
        work = refold(client, archive, transition, job.partition, job.users, keep_s)
    finally:
        client.close()
    if work.done:
        write_part(Path(job.snapshot), _snapshot(work.done))
    return Result(len(job.users), len(work.done), work.short)


@lru_cache(maxsize=1)
def _transition(settings: str) -> tuple[Path, Transition, int]:
    given = Settings.model_validate_json(settings)
    return given.home, loaded.transition(given), given.keep_states_s


def _on_ray(jobs: Sequence[Job], processors: int) -> Iterator[Result]:
    import ray

    work = ray.remote(num_cpus=1, max_retries=3)(run)
    waiting, running = deque(jobs), list[Any]()
    while waiting or running:
        while waiting and len(running) < QUEUED * processors:
            running.append(work.remote(waiting.popleft()))
        ready, running = ray.wait(running)
        for reference in ready:
            try:
                yield ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise PortraitError(
                    f"a process of the rebuild died again and again ({type(error).__name__}): "
                    "is there enough memory? What is done stays; run it again"
                ) from error


@contextmanager
def _ray() -> Iterator[int]:
    """Use the Ray there is (or that RAY_ADDRESS names), or one of our own for the while."""
    import ray

    own = {"num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": _OBJECT_STORE_BYTES}
    with local_ray.using(**own):
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))


def _snapshot(rows: dict[str, LiveState]) -> pa.Table:
    states, now = list(rows.values()), datetime.now(UTC)
    moments = SNAPSHOT.field("event_timestamp").type
    return pa.table(
        [
            pa.array(list(rows)),
            pa.array([s.time_ms * 1000 for s in states], pa.int64()).cast(moments),
            pa.array([now] * len(states), moments),
            pa.array([s.profile for s in states], pa.binary()),
            pa.array([s.learned for s in states], pa.binary()),
            pa.array([s.version for s in states], pa.int64()),
            pa.array([s.model for s in states], pa.string()),
        ],
        schema=SNAPSHOT,
    )
