"""Rows made again: some users' histories folded and put in place of their live rows.

Belongs here: one group of users of one partition, while an updater may go on applying their
events, and its lease where they never pause. Not here: which users, and where this runs (`run`);
the folding itself (`history.refolding`).
"""

import uuid
from collections.abc import Sequence
from typing import Any, Final

import structlog

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import StoreUnavailableError
from feature_repo.online.connection import translated
from services.history.refolding import ATTEMPTS, Refolding
from services.models.transition import Transition
from services.update.lease import Leases

LEASE_MS: Final = 5_000

_log = structlog.get_logger(__name__)


def refold(
    client: Any,
    archive: Archive,
    transition: Transition,
    partition: int,
    users: Sequence[str],
    keep_s: int = 0,
    *,
    fewer: bool = False,
) -> Refolding:
    """Fold the histories of ``users`` and replace their live rows; return what became of them.

    Parameters
    ----------
    client
        Synchronous client.
    archive
        Where the parts lie.
    transition
        Gives the rows; its target is the model they follow.
    partition
        Number of the partition that all of them belong to.
    users
        Pseudonyms. Who is erased, or has no history and no row, is passed over.
    keep_s
        See `feature_repo.online.live_rows.replace_live`.
    fewer
        See `Refolding`.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer, or a row changed even while nobody else might.
    """
    work = Refolding(client, archive, transition, partition, keep_s, fewer=fewer)
    work.begin(users)
    if work.settle(ATTEMPTS):
        return work
    _log.info("lease_taken", partition=partition, users=len(work.rows))
    leases = Leases(client, f"rebuild-{uuid.uuid4().hex[:8]}", LEASE_MS)
    with translated():
        leases.take(partition, force=True)
        try:
            work.catch_up()
            left = work.replace()
        finally:
            leases.release(partition)
    if left:
        raise StoreUnavailableError(
            f"{len(left)} rows of partition {partition} changed while its lease was held here: "
            "another rebuild runs; run this one again when it is done"
        )
    return work
