"""The command that writes the behaviour report."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo.errors import NotFoundError
from services.commands.application import Home, Json, app, as_of_ms, print_json, settings_with
from services.runtime.progress import console, step


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the page and its tables")] = Path("out"),
    as_of: Annotated[str | None, typer.Option(help="A day or RFC 3339 time; default: now")] = None,
    steps: Annotated[
        str | None, typer.Option(help="Types of events of the funnel, in order, comma-separated")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write what users do: `behaviour.html`, and an SVG and a CSV file for each part of it.

    Examples: `portrait report --out out` ·
    `portrait report --as-of 2017-12-01 --steps view_item,add_to_cart,purchase`
    """
    from feature_repo.analytics.funnel import parse
    from feature_repo.archive.event_archive import Archive
    from services.analytics import report as behaviour_report

    chosen = None if steps is None else parse(steps)
    at_ms = as_of_ms(as_of)
    settings = settings_with(home=home)
    archive = Archive(settings.home / "archive" / "events")
    if archive.empty():
        raise NotFoundError(
            f"no events below {archive.root}: run `portrait import completejourney` first"
        )
    with step("write the behaviour report") as tell:
        found = behaviour_report.write(
            settings.home, out, now_ms=at_ms, steps=chosen, tell=tell, standing=settings.standing
        )
        tell.note = f"{found['events']:,} events, as of {found['as_of']}"
    console.print(f"{found['page']} and {len(found['files']) - 1} files beside it", markup=False)
    if json:
        print_json(found)
