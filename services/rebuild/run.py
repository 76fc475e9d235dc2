"""Rows from history: every profile, or some, folded again while the service runs.

Belongs here: who is rebuilt, and what else follows from history (catalogue, popularity, the
snapshot for the offline store). How some users' rows are made and put in place without
holding the updaters up is `refold`'s, where that runs `jobs`'s.
"""

import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.archive.event_archive import Archive
from feature_repo.archive.part_set import part_writer
from feature_repo.audiences.denials import read_denying
from feature_repo.erasure import tombstones
from feature_repo.erasure.parquet_rows import drop_owned
from feature_repo.erasure.running_work import hold_folder
from feature_repo.errors import NotFoundError, PortraitError
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import translated
from feature_repo.online.live_rows import read_live
from services.catalogue import catalogue, popularity
from services.event_log.entries import decode, read_entries
from services.event_log.keys import log_key
from services.event_log.model_switch import switch_model
from services.history.merged_history import restore_owners
from services.hosting.embedded import connect
from services.models import loaded
from services.rebuild.history_lock import lock_history
from services.rebuild.jobs import SNAPSHOT, TIMEOUT_S, Job, results
from services.settings import Settings

__all__ = ["find_users", "rebuild", "switch_model"]

Progress = Callable[[int, int, str], None]

CHUNK_USERS: Final = 256
_MERGED: Final = 40  # job files that make one row group: 10,000 rows, some 40 MB


def rebuild(
    settings: Settings, *, users: Sequence[str] | None = None, progress: Progress | None = None
) -> int:
    """Fold the history of ``users`` (pseudonyms; None: everyone) and replace their live rows.

    Safe at any time: events go on being accepted and applied, and a row is never replaced by
    an older one. If the production model is not the one that the partitions follow, they are
    told to first; the rows made then follow it. Also fills an empty catalogue and the popularity
    from the archive, and writes a snapshot part of the live view for Feast's offline store.

    Parameters
    ----------
    progress
        Called with users done, users in all, and what is being done.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConflictError
        If a link is being undone.
    StoreUnavailableError
        If the store does not answer. What is done stays; the same call can be repeated.
    PortraitError
        If the known history of some users is shorter than their rows; everyone else is done.
    """
    tell = progress or (lambda done, total, what: None)
    archive = Archive(settings.home / "archive" / "events")
    partitions = Pseudonyms.load(settings.home, settings.partitions).partitions
    with (
        lock_history(settings.home, alone=False),
        connect(settings) as url,
        _staging(settings.home) as folder,
    ):
        tell(0, 0, "profiles")
        client = connect_store(url, timeout_s=TIMEOUT_S)
        try:
            pinned, target = _pin_model(settings, client)
            with translated():
                catalogue.load_archive(client, settings.home)
                denying = read_denying(settings.home, "analytics", settings.standing)
                popularity.seed(client, archive, denying)
                switch_model(client, range(partitions), target)
                restore_owners(client, archive, partitions)
                chosen = _everyone(client, archive, partitions) if users is None else set(users)
        finally:
            client.close()
        jobs = _jobs(pinned.model_dump_json(exclude={"api_key"}), url, chosen, folder)
        done, written, short = 0, 0, list[str]()
        for result in results(jobs):
            done, written = done + result.users, written + result.written
            short += result.short
            tell(done, len(chosen), "profiles")
        with tombstones.publishing(settings.home) as erased:
            _publish(folder, settings.home / "features" / "live_state", erased)
    if short:
        raise PortraitError(
            f"{len(short)} of {len(chosen)} profiles were left as they are (one is {short[0]}): "
            "archive and log hold fewer events than these profiles have seen. Put the missing "
            f"parts back into {archive.root} and rebuild again"
        )
    return written


def find_users(settings: Settings, user_ids: Sequence[str]) -> list[str]:
    """Return the pseudonyms of users; `NotFoundError` names the first of whom nothing is known."""
    pseudonyms = Pseudonyms.load(settings.home, settings.partitions)
    users = [pseudonyms.of_user(user_id) for user_id in user_ids]
    archive = Archive(settings.home / "archive" / "events")
    known = {user for user, _ in archive.histories(users)}
    with connect(settings) as url, closing(connect_store(url)) as client, translated():
        rows = zip(users, read_live(client, users), strict=True)
        known.update(user for user, row in rows if row is not None)
        for partition in {partition_of(user) for user in users if user not in known}:
            log = decode(read_entries(client, log_key(partition)))
            known.update(record.user for _, record in log)
    for user_id, user in zip(user_ids, users, strict=True):
        if user not in known:
            raise NotFoundError(f"no event of user {user_id!r} is known: nothing was rebuilt")
    return users


def _pin_model(settings: Settings, client: Any) -> tuple[Settings, str]:
    """Return settings that name the production model, and its version: all jobs use one."""
    pinned = loaded.pin(settings, client)
    update: dict[str, Path] = {"home": settings.home.resolve()}
    if pinned.model is not None:
        update["model"] = pinned.model.resolve()
    return settings.model_copy(update=update), loaded.transition(pinned).model


def _everyone(client: Any, archive: Archive, partitions: int) -> set[str]:
    """Return all users of archive and log. The log first: what is archived meanwhile is seen."""
    users = set[str]()
    for partition in range(partitions):
        users.update(record.user for _, record in decode(read_entries(client, log_key(partition))))
    return users.union(archive.users())


def _jobs(settings: str, url: str, users: set[str], folder: Path) -> list[Job]:
    by_partition: dict[int, list[str]] = defaultdict(list)
    for user in sorted(users):
        by_partition[partition_of(user)].append(user)
    jobs = list[Job]()
    for partition, members in by_partition.items():
        for start in range(0, len(members), CHUNK_USERS):
            chunk = tuple(members[start : start + CHUNK_USERS])
            file = folder / f"{len(jobs):08d}.parquet"
            jobs.append(Job(settings, url, partition, chunk, str(file)))
    return jobs


@contextmanager
def _staging(home: Path) -> Iterator[Path]:
    folder = home.resolve() / "features" / f".rebuild-{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
    with hold_folder(folder):  # an erasure removes what nobody holds
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path, erased: frozenset[str]) -> None:
    """Make the jobs' files one snapshot part, which appears whole or not at all."""
    files = iter(sorted(folder.glob("*.parquet")))
    whole = folder / "whole"
    rows = 0
    with part_writer(whole, SNAPSHOT) as writer:
        while some := list(islice(files, _MERGED)):
            table = drop_owned(pa.concat_tables(pq.read_table(path) for path in some), erased)
            writer.write_table(table)
            rows += table.num_rows
    if rows:
        target.mkdir(parents=True, exist_ok=True)
        whole.rename(target / f"rebuild-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.parquet")
