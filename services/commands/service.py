"""Commands on the running system: serve, rebuild, mend, and look whether all is well."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError
from feature_repo.events.pseudonyms import Pseudonyms
from services.commands.application import Home, Json, app, print_json, settings_with
from services.commands.audited import note_run
from services.runtime.progress import console, step

if TYPE_CHECKING:
    from services.event_log.dead_letters import DeadLetter


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP API")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateway replicas")] = None,
    updaters: Annotated[int | None, typer.Option(help="Updater replicas")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model directory, in place of production")
    ] = None,
    replay_clock: Annotated[
        bool | None, typer.Option("--replay-clock", help="Take each event's time as now")
    ] = None,
    log_to_stderr: Annotated[
        bool | None, typer.Option("--log-to-stderr", help="Print log lines too")
    ] = None,
    home: Home = None,
) -> None:
    """Start the HTTP service and stay until Ctrl-C.

    Examples: `portrait serve` · `portrait serve --port 9000 --updaters 2` ·
    `PORTRAIT_REDIS_URL=redis://127.0.0.1:6379/0 portrait serve`
    """
    from services.hosting.serve import serve_forever

    code = serve_forever(
        settings_with(
            home=home, host=host, port=port, gateways=gateways, updaters=updaters, model=model,
            replay_clock=replay_clock, log_to_stderr=log_to_stderr,
        )
    )  # fmt: skip
    if code:
        raise typer.Exit(code)


@app.command()
def demo(
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Leave the service up at the end")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Repeat finished steps too")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the report")] = Path("out"),
    home: Home = None,
) -> None:
    """Run the whole loop on a year of real shopping data and write a report.

    Examples: `portrait demo` · `portrait demo --keep-serving`
    """
    from services.demo.run import run

    settings = settings_with(home=home)
    run(settings, out=out, keep_serving=keep_serving, fresh=fresh)


@app.command()
def rebuild(
    user: Annotated[list[str] | None, typer.Option(help="Only these user ids")] = None,
    home: Home = None,
) -> None:
    """Fold every profile again from the archive and load it into the online store.

    Example: `portrait rebuild --user 123 --user 456`
    """
    from services.hosting.workflow import stores
    from services.rebuild.run import find_users
    from services.rebuild.run import rebuild as rebuild_profiles

    settings = settings_with(home=home)
    if not settings.home.exists():
        raise InvalidInputError(
            f"there is no {settings.home}: name the state folder with --home or PORTRAIT_HOME"
        )
    users = None if user is None else find_users(settings, user)
    note_run(home, "portrait rebuild", users=user or ())
    with stores(settings), step("rebuild profiles") as tell:
        tell.note = f"{rebuild_profiles(settings, users=users, progress=tell):,} profiles"


@app.command("dead-letters")
def dead_letters(
    what: Annotated[Literal["list", "retry", "drop"], typer.Argument(help="What to do")] = "list",
    ids: Annotated[list[str] | None, typer.Argument(help="Letters; without: see --all")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry or drop every letter")] = False,
    limit: Annotated[int, typer.Option(min=1, help="List at most so many")] = 100,
    home: Home = None,
    json: Json = False,
) -> None:
    """List events that could not be applied, apply them again, or drop them for good.

    Examples: `portrait dead-letters list` · `portrait dead-letters retry p012-1732391111111-0` ·
    `portrait dead-letters drop --all`
    """
    from feature_repo.online.connection import connect as connect_store
    from services.event_log import dead_letters as letters
    from services.hosting.embedded import connect

    settings = settings_with(home=home)
    if what != "list" and bool(ids) == everything:
        raise InvalidInputError(f"name the letters to {what}, or say --all")
    if what != "list":
        note_run(home, f"portrait dead-letters {what}")
    with connect(settings) as url:
        client = connect_store(url)
        partitions = range(Pseudonyms.load(settings.home, settings.partitions).partitions)
        if what == "list":
            _list_letters(letters.letters(client, partitions, limit), json)
            return
        act = letters.retry if what == "retry" else letters.drop
        done = act(client, partitions, None if everything else ids)
    for name, outcome in done.items():
        print(f"{name}  {outcome}")  # noqa: T201
    if json:
        print_json(done)


def _list_letters(found: "list[DeadLetter]", json: bool) -> None:
    table = Table("letter", "event", "type", "reason")
    for letter in found:
        event = letter.event
        table.add_row(
            letter.id, "-" if event is None else event.id, "-" if event is None else event.type,
            letter.reason,
        )  # fmt: skip
    console.print(table)
    if json:
        rows = [{"id": each.id, "entry": each.entry, "reason": each.reason} for each in found]
        print_json(rows)


@app.command()
def doctor(home: Home = None) -> None:
    """Say what is missing on this machine and the command that mends it.

    Example: `portrait doctor`
    """
    from services.commands.doctor import examine

    findings = examine(settings_with(home=home))
    for finding in findings:
        mark = "ok" if finding.ok else "MISSING"
        print(f"{mark:>8}  {finding.subject}: {finding.detail}")  # noqa: T201
        if finding.mend:
            print(f"          mend: {finding.mend}")  # noqa: T201
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
