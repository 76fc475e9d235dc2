"""Commands on privacy: what the shop keeps of people, and for how long."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from feature_repo.errors import InvalidInputError
from services.commands.application import Home, Json, app, print_json, settings_with
from services.commands.audited import note_run
from services.runtime.progress import console, step

privacy = typer.Typer(
    no_args_is_help=True,
    help="People exported and erased, old events swept. "
    "Example: `portrait privacy erase 123 --wait`",
)
app.add_typer(privacy, name="privacy")


@privacy.command("sweep")
def sweep(
    days: Annotated[
        int | None, typer.Option(min=30, max=36_500, help="Default: PORTRAIT_RETENTION_DAYS")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove raw events and rejects that are older than so many days; profiles keep their counts.

    Runs beside the service, by cron. Read what it means in docs/privacy.md first: a profile whose
    history is no longer whole cannot be rebuilt.

    Examples: `portrait privacy sweep --days 400` · `portrait privacy sweep --json`
    """
    from feature_repo.erasure.retention import sweep_old

    settings = settings_with(home=home)
    kept = settings.retention_days if days is None else days
    if kept is None:
        raise InvalidInputError(
            "nothing says how long events are kept: set PORTRAIT_RETENTION_DAYS, or give --days"
        )
    note_run(home, "portrait privacy sweep")
    before = datetime.now(UTC) - timedelta(days=kept)
    with step(f"sweep what is older than {kept} days") as tell:
        removed = sweep_old(
            settings.home, round(before.timestamp() * 1000),
            lambda done, total: tell(done, total, "parts"),
        )  # fmt: skip
        tell.note = ", ".join(f"{each.store} {each.removed:,}" for each in removed)
    for each in removed:
        if each.removed < each.found:
            console.print(f"{each.store}: {each.note}; run it again", markup=False)
    if json:
        rows = [{"store": r.store, "found": r.found, "removed": r.removed} for r in removed]
        print_json({"before": before.isoformat(timespec="seconds"), "stores": rows})
