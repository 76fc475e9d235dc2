"""Commands on privacy: what the shop keeps of people, and for how long."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from services.commands.application import Home, Json, app, print_json, settings_with
from services.commands.audited import note_run
from services.runtime.progress import console, step

if TYPE_CHECKING:
    from feature_repo.erasure.removal import Removal
    from services.settings import Settings

privacy = typer.Typer(
    no_args_is_help=True,
    help="People exported and erased, old events swept. "
    "Example: `portrait privacy erase 123 --wait`",
)
app.add_typer(privacy, name="privacy")
_TIMEOUT_S: Final = 30.0


@privacy.command("sweep")
def sweep(
    days: Annotated[
        int | None, typer.Option(min=30, max=36_500, help="Default: PORTRAIT_RETENTION_DAYS")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and remove nothing")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove what is kept for a while only: raw events, rejects, letters, idle anonymous ids.

    Runs beside the service, by cron. Read what it means in docs/privacy.md first: a profile whose
    history is no longer whole cannot be rebuilt.

    Examples: `portrait privacy sweep --dry-run` · `portrait privacy sweep --days 400 --json`
    """
    from services.erasure.sweep import DAY_MS

    settings = settings_with(home=home)
    kept = settings.retention_days if days is None else days
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    if not dry_run:
        note_run(home, "portrait privacy sweep")
    _say_what_follows(settings, kept, dry_run=dry_run)
    removed = _sweep_files(settings, kept, now_ms, dry_run=dry_run)
    removed += _sweep_store(settings, kept, now_ms, dry_run=dry_run)
    table = Table("place", "would go" if dry_run else "removed", "left", "note")
    for each in removed:
        left = each.found - each.removed
        table.add_row(each.store, f"{each.removed:,}", f"{left:,}", each.note if left else "")
    console.print(table)
    if json:
        rows = [{"store": r.store, "found": r.found, "removed": r.removed} for r in removed]
        before = datetime.fromtimestamp(now_ms / 1000 - kept * DAY_MS / 1000, UTC)
        told = {"before": before.isoformat(timespec="seconds"), "dry_run": dry_run}
        print_json(told | {"stores": rows})


def _say_what_follows(settings: "Settings", kept: int, *, dry_run: bool) -> None:
    from services.erasure.sweep import idle_days

    def tell(name: str, days: int) -> str:
        found = idle_days(days, kept)
        return f"{name}: never" if found is None else f"{name}: after {found:,} days"

    parts = [
        f"raw events and dead letters older than {kept:,} days",
        f"rejects: after {settings.reject_days or kept:,} days",
        f"session ids: after {min(settings.session_days or kept, kept):,} days",
        f"decisions: {settings.decision_days:,} days after the campaign",
        tell("idle profiles", settings.idle_profile_days),
        tell("idle anonymous ids", settings.anonymous_days),
    ]
    console.print(("would go: " if dry_run else "goes: ") + "; ".join(parts), markup=False)
    follows = "profiles keep their counts, but cannot be rebuilt once events of theirs are gone"
    console.print(f"what follows: {follows} (docs/privacy.md)", markup=False)


def _sweep_files(settings: "Settings", kept: int, now_ms: int, *, dry_run: bool) -> "list[Removal]":
    from feature_repo.erasure.retention import sweep_old
    from services.erasure.sweep import DAY_MS

    sessions = settings.session_days if 0 < settings.session_days < kept else None
    with step(f"sweep files of what is older than {kept} days") as tell:
        return sweep_old(
            settings.home, now_ms - kept * DAY_MS,
            lambda done, total: tell(done, total, "parts"),
            rejects_before_ms=now_ms - (settings.reject_days or kept) * DAY_MS,
            sessions_before_ms=None if sessions is None else now_ms - sessions * DAY_MS,
            dry_run=dry_run,
        )  # fmt: skip


def _sweep_store(settings: "Settings", kept: int, now_ms: int, *, dry_run: bool) -> "list[Removal]":
    if settings.redis_url is None and not (settings.home / "store").exists():
        return []
    from feature_repo.online.connection import connect as connect_store
    from services.erasure.sweep import sweep_store
    from services.hosting.embedded import connect

    with connect(settings) as url, step("sweep the store") as tell:
        client = connect_store(url, timeout_s=_TIMEOUT_S)
        try:
            return sweep_store(
                client, settings, kept, now_ms, dry_run=dry_run,
                progress=lambda rows: tell(rows, 0, "rows"),
            )  # fmt: skip
        finally:
            client.close()


@privacy.command("unlink")
def unlink(
    user_id: Annotated[str, typer.Argument(help="The shop's own user id")],
    anonymous_id: Annotated[str, typer.Argument(help="The anonymous id that is not theirs")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Undo a wrong link: both profiles are folded anew, as if the two had never met.

    Runs beside the service. Ended midway, it is run again with the same ids. Read what it cannot
    give back in docs/privacy.md.

    Examples: `portrait privacy unlink 123 a-7f3` · `portrait privacy unlink 123 a-7f3 --json`
    """
    from services.rebuild import unlink as undoing
    from services.rebuild.wrong_link import find_link

    settings = settings_with(home=home)
    with step("look for the link"):
        link = find_link(settings, user_id, anonymous_id)
    note_run(home, "portrait privacy unlink", users=[user_id])
    with step("undo the link") as tell:
        done = undoing.unlink(settings, link, tell)
        told = f"{done.moved:,} events are the anonymous id's again"
        tell.note = f"{told}, {done.named:,} of the user's name it no more"
    if done.again:
        console.print(
            "an event that came meanwhile names both ids again: log the user out where the "
            "anonymous id is sent along, then run it again"
        )
    if json:
        print_json({"moved": done.moved, "named": done.named, "linked_again": done.again})
