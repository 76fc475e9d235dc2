"""The sweep of the store: what settings keep for a while only, removed beside the service.

Belongs here: which settings bound what. What is removed how is `idle`'s and `old_entries`'.
"""

from collections.abc import Callable, Collection
from typing import Any, Final

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure.files import erase_tables
from feature_repo.erasure.removal import Removal
from feature_repo.erasure.retention import drop_statements
from feature_repo.online.connection import translated
from services.erasure.idle import IdleBounds, find_rowless, forget_ledger, sweep_idle
from services.erasure.idle_notes import IdleNotes
from services.erasure.old_entries import sweep_changes, sweep_decisions, sweep_letters
from services.settings import Settings

DAY_MS: Final = 86_400_000


def idle_days(days: int, retention_days: int) -> int | None:
    """Return after how many days without an event a profile goes; None: never.

    Never before its raw events: a rebuild would bring it back.

    Examples
    --------
    >>> idle_days(0, 400), idle_days(90, 400), idle_days(800, 400)
    (None, 400, 800)
    """
    return max(days, retention_days) if days else None


def sweep_store(
    client: Any,
    settings: Settings,
    retention_days: int,
    now_ms: int,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Removal]:
    """Remove what is too old from the store, and the tables' rows of profiles that went.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; the next sweep goes on.
    """

    def before(days: int) -> int | None:
        kept = idle_days(days, retention_days)
        return None if kept is None else now_ms - kept * DAY_MS

    old_ms = now_ms - retention_days * DAY_MS
    removed = [
        sweep_decisions(client, now_ms, settings.decision_days, dry_run=dry_run),
        sweep_letters(client, settings.partitions, old_ms, dry_run=dry_run),
        sweep_changes(client, old_ms, dry_run=dry_run),
    ]
    bounds = IdleBounds(
        now_ms, before(settings.idle_profile_days), before(settings.anonymous_days),
        settings.standing,
    )  # fmt: skip
    archive, notes = Archive(settings.home / "archive" / "events"), IdleNotes(settings.home)
    left = frozenset[str]() if dry_run else notes.read()
    done = sweep_idle(
        client, settings.partitions, bounds, list_archived=archive.users, dry_run=dry_run,
        note=(lambda _: None) if dry_run else notes.add, progress=progress,
    )  # fmt: skip
    removed += [
        Removal(name, done.counts[name], done.counts[name])
        for name in ("profiles", "anonymous_ids")
    ]
    removed.append(
        Removal("denials", done.counts["denials"], 0, note="left: back again, they would count as "
                "never asked")
    )  # fmt: skip
    removed.append(Removal("moved", done.counts["moved"], 0, note="left for the next sweep"))
    if not dry_run:
        gone = done.gone | _finish_killed(client, left - done.gone)
        if gone:
            removed += erase_tables(settings.home, frozenset(gone))
            removed.append(drop_statements(settings.home, frozenset(gone), old_ms))
        notes.clear()
    return removed


def _finish_killed(client: Any, noted: Collection[str]) -> set[str]:
    """Return whom a killed sweep removed, what campaigns keep of them removed too."""
    with translated():
        gone = find_rowless(client, noted)
        for one in gone:
            forget_ledger(client, one)
    return gone
