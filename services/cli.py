"""The ``portrait`` command: thin entrances to what the rooms do.

Expected failures become one line on stderr: exit code 2 when the caller can mend it, 1
when the store or a model is at fault, 130 after Ctrl-C. JSON, where a command offers it,
is the last line on stdout.
"""

import atexit
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from pydantic import ValidationError
from rich.table import Table
from typer.core import TyperGroup

from feature_repo.entity import Tenant
from feature_repo.errors import InvalidInputError, InvalidSettingError, PortraitError
from services.progress import console, step
from services.settings import Settings


class OneLineErrors(TyperGroup):
    """Turns expected failures of any command into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the module's text for the exit codes."""
        try:
            return super().invoke(ctx)
        except InvalidInputError as error:
            message, code = str(error), 2
        except PortraitError as error:
            message, code = str(error), 1
        except (KeyboardInterrupt, SystemExit, RuntimeError) as error:
            # Ctrl-C comes as SystemExit out of Ray Train, as RuntimeError out of DuckDB.
            if isinstance(error, RuntimeError) and str(error) != "Query interrupted":
                raise
            message, code = "stopped; what was finished is kept, nothing is half-written", 130
        print(f"portrait: {message}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(code)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Living user profiles for e-commerce.",
)

Home = Annotated[
    Path | None, typer.Option(help="State folder; default: PORTRAIT_HOME, else .portrait")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON, last, on stdout")]


def main() -> None:
    """Run the command line."""
    atexit.register(_hush)
    app()


def _hush() -> None:
    # DuckDB's binding prints pages about leaked objects while the interpreter goes down.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _print_json(value: Any) -> None:
    print(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())  # noqa: T201


def settings_with(**given: Any) -> Settings:
    """Return the settings from the environment, options given on the command line first.

    Raises
    ------
    InvalidSettingError
        Naming the setting, the value's fault and the variable to mend.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidSettingError(
            f"PORTRAIT_{name.upper()} or --{name.replace('_', '-')}: {first['msg']}"
        ) from None


def moment(text: str) -> datetime:
    """Return a day or an RFC 3339 time as an aware datetime.

    Raises
    ------
    InvalidInputError
        If ``text`` is neither.

    Examples
    --------
    >>> moment("2017-12-18").isoformat()
    '2017-12-18T00:00:00+00:00'
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is not a time: use a day (2017-12-18) or RFC 3339 (2017-12-18T06:00:00Z)"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="completejourney, retailrocket, taobao or file")],
    path: Annotated[Path | None, typer.Argument(help="The file, where the source is one")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML column mapping, for `file`")] = None,
    until: Annotated[str | None, typer.Option(help="Hold back events from this time on")] = None,
    rest: Annotated[Path | None, typer.Option(help="NDJSON file for the events held back")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Read history into the archive: cleaned, checked, every row accounted for.

    Examples: `portrait import completejourney` ·
    `portrait import retailrocket events.csv` ·
    `portrait import file shop.parquet --mapping shop.yaml`
    """
    from feature_repo import importers

    settings = settings_with(home=home)
    with step(f"import {source}") as tell:
        report = importers.run(
            source,
            home=settings.home,
            path=path,
            mapping=mapping,
            until=None if until is None else moment(until),
            rest=rest,
            progress=tell,
        )
    table = Table("rows", "count", title=f"{report.rows_in:,} rows in", title_justify="left")
    table.add_row("accepted", f"{report.accepted:,}")
    for reason, count in report.rejected.items():
        table.add_row(f"rejected: {reason}", f"{count:,}")
    for reason, count in report.set_aside.items():
        table.add_row(f"set aside: {reason}", f"{count:,}")
    console.print(table)
    console.print(f"{report.events:,} events; rejects in {report.rejects_file}", markup=False)
    if json:
        _print_json(report.as_dict())


@app.command()
def key(
    user_id: Annotated[str, typer.Argument(help="The shop's own user id")], home: Home = None
) -> None:
    """Print a user's entity id, the key of their rows in Feast.

    Example: `portrait key 123`
    """
    settings = settings_with(home=home)
    print(Tenant.load(settings.home, settings.partitions).entity(user_id))  # noqa: T201


@app.command()
def env(home: Home = None) -> None:
    """Print the export lines that a plain Feast client needs for the running stores.

    Example: `eval "$(portrait env)" && cd feature_repo && feast feature-views list`
    """
    import shlex

    from services.embedded import running_url

    settings = settings_with(home=home)
    url = settings.redis_url or running_url(settings.home)
    if url is None:
        raise InvalidInputError(
            "no store is running: start one with `portrait serve`, or set PORTRAIT_REDIS_URL"
        )
    for name, value in settings.export(url).items():
        print(f"export {name}={shlex.quote(value)}")  # noqa: T201


@app.command()
def apply(home: Home = None) -> None:
    """Register entities, feature views and feature services with Feast.

    Example: `portrait apply`
    """
    from services.workflow import stores

    with step("apply feature definitions"), stores(settings_with(home=home)):
        pass


@app.command()
def dataset(
    as_of: Annotated[str, typer.Option(help="Use nothing from this time on")],
    out: Annotated[Path, typer.Option(help="Parquet file to write")],
    home: Home = None,
) -> None:
    """Write the point-in-time training set for anyone's training.

    Example: `portrait dataset --as-of 2017-12-18 --out train.parquet`
    """
    from services.workflow import build_features, stores
    from training import dataset as training_dataset

    settings, end = settings_with(home=home), moment(as_of)
    with stores(settings):
        with step("feature snapshots") as tell:
            build_features(settings.home, end, tell)
        with step("point-in-time join") as tell:
            rows = training_dataset.build(settings.home, as_of=end, out=out, progress=tell)
            tell.note = f"{rows:,} rows in {out}"


@app.command()
def train(
    cut_off: Annotated[str | None, typer.Option(help="Train on events before this time")] = None,
    recipe: Annotated[str, typer.Option(help="fused or stacked")] = "fused",
    workers: Annotated[int, typer.Option(min=1, help="Ray Train workers")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many epochs")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same loss")] = 7,
    resume: Annotated[bool, typer.Option(help="Continue a run that was killed")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train the encoder with Ray Train and write a model directory.

    Examples: `portrait train --cut-off 2017-12-18` · `portrait train --resume`
    """
    from services.workflow import train_model

    settings = settings_with(home=home)
    with step(f"train {recipe}") as tell:
        model = train_model(
            settings, cut_off=None if cut_off is None else moment(cut_off), recipe=recipe,
            workers=workers, epochs=epochs, seed=seed, resume=resume, tell=tell,
        )  # fmt: skip
        tell.note = str(model)
    if json:
        _print_json({"model": str(model)})


@app.command()
def evaluate(
    since: Annotated[str, typer.Option(help="First day of the test")],
    until: Annotated[
        str | None, typer.Option(help="End of the test; default: the last event")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory; default: the newest")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Rank every test basket with the model and its baselines.

    Example: `portrait evaluate --since 2017-12-18 --json`
    """
    from services.workflow import evaluate_model, metrics_table

    settings = settings_with(home=home, model=model)
    with step("evaluate") as tell:
        result = evaluate_model(
            settings, since=moment(since), until=None if until is None else moment(until), tell=tell
        )
    console.print(metrics_table(result))
    if json:
        _print_json(result)


@app.command()
def materialize(
    since: Annotated[
        str | None, typer.Option(help="Default: a week back; everything at first")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Default: now")] = None,
    home: Home = None,
) -> None:
    """Compute new feature snapshots and load the batch views into the online store.

    The window overlaps the previous one, so late rows arrive; live state is never touched.

    Example: `portrait materialize --until 2017-12-18`
    """
    from services.workflow import materialize_views

    settings = settings_with(home=home)
    with step("materialize") as tell:
        rows = materialize_views(
            settings,
            since=None if since is None else moment(since),
            until=None if until is None else moment(until),
            tell=tell,
        )
        tell.note = ", ".join(f"{view} {count:,}" for view, count in rows.items())


@app.command()
def rebuild(
    user: Annotated[list[str] | None, typer.Option(help="Only these user ids")] = None,
    home: Home = None,
) -> None:
    """Fold every profile again from the archive and load it into the online store.

    Example: `portrait rebuild --user 123 --user 456`
    """
    from services.rebuild import rebuild as rebuild_profiles
    from services.workflow import stores

    settings = settings_with(home=home)
    with stores(settings), step("rebuild profiles") as tell:
        tenant = Tenant.load(settings.home, settings.partitions)
        users = None if user is None else [tenant.entity(name) for name in user]
        tell.note = f"{rebuild_profiles(settings, users=users, progress=tell):,} profiles"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP API")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateway replicas")] = None,
    updaters: Annotated[int | None, typer.Option(help="Updater replicas")] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory; default: the newest")] = None,
    replay_clock: Annotated[
        bool | None, typer.Option("--replay-clock", help="Take each event's time as now")
    ] = None,
    home: Home = None,
) -> None:
    """Start the HTTP service and stay until Ctrl-C.

    Examples: `portrait serve` · `portrait serve --port 9000 --updaters 2` ·
    `PORTRAIT_REDIS_URL=redis://127.0.0.1:6379/0 portrait serve`
    """
    from services.serve import serve_forever

    serve_forever(
        settings_with(
            home=home, host=host, port=port, gateways=gateways, updaters=updaters, model=model,
            replay_clock=replay_clock,
        )
    )  # fmt: skip


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
    from services.demo import run

    settings = settings_with(home=home)
    run(settings, out=out, keep_serving=keep_serving, fresh=fresh)


@app.command()
def bench(
    what: Annotated[
        Literal["service"], typer.Argument(help="service: latency and throughput over HTTP")
    ] = "service",
    json: Json = False,
) -> None:
    """Measure a service started for the purpose, in a folder of its own.

    Example: `portrait bench service --json`
    """
    from services.bench import measure, table

    result = measure(what)
    console.print(table(result))
    if json:
        _print_json(result)


@app.command()
def doctor(home: Home = None) -> None:
    """Say what is missing on this machine and the command that mends it.

    Example: `portrait doctor`
    """
    from services.doctor import examine

    findings = examine(settings_with(home=home))
    for finding in findings:
        mark = "ok" if finding.ok else "MISSING"
        print(f"{mark:>8}  {finding.subject}: {finding.detail}")  # noqa: T201
        if finding.mend:
            print(f"          mend: {finding.mend}")  # noqa: T201
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
