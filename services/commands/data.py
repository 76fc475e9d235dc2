"""Commands on history, features and models: from a file to a trained, evaluated encoder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError
from feature_repo.events.fields import MAX_ID
from feature_repo.events.pseudonyms import Pseudonyms
from services.commands.application import (
    Home,
    Json,
    app,
    moment,
    print_json,
    settings_with,
    with_store,
)
from services.runtime.progress import console, step


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="completejourney, retailrocket, taobao, file or export")
    ],
    path: Annotated[Path | None, typer.Argument(help="The file, or a folder of its parts")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML column mapping, for `file`")] = None,
    until: Annotated[str | None, typer.Option(help="Hold back events from this time on")] = None,
    rest: Annotated[Path | None, typer.Option(help="NDJSON file for the events held back")] = None,
    keep_raw_rejects: Annotated[
        bool, typer.Option(help="Keep rejected rows whole, with raw user ids")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Read history into the archive: cleaned, checked, every row accounted for.

    Examples: `portrait import completejourney` ·
    `portrait import retailrocket events.csv` ·
    `portrait import file shop.parquet --mapping shop.yaml` ·
    `portrait import export person.json` (a file of `portrait privacy export`)
    """
    from feature_repo import importers
    from feature_repo.archive.currency import Money

    settings = settings_with(home=home)
    with step(f"import {source}") as tell:
        report = importers.run(
            source,
            home=settings.home,
            path=path,
            mapping=mapping,
            until=None if until is None else moment(until),
            rest=rest,
            keep_raw=keep_raw_rejects,
            money=Money(settings.currency, settings.exchange_rates),
            policy=settings.field_policy,
            progress=tell,
        )
    table = Table("rows", "count", title=f"{report.rows_in:,} rows in", title_justify="left")
    table.add_row("accepted", f"{report.accepted:,}")
    for reason, count in report.rejected.items():
        table.add_row(f"rejected: {reason}", f"{count:,}")
    for reason, count in report.set_aside.items():
        table.add_row(f"set aside: {reason}", f"{count:,}")
    if report.amounts_set_aside:
        table.add_row("events without amounts set aside: other_currency",
                      f"{report.amounts_set_aside:,}")  # fmt: skip
    console.print(table)
    for reason in report.rejected:
        if reason in importers.MENDS:
            console.print(f"{reason}: {importers.MENDS[reason]}?", markup=False)
    console.print(f"{report.events:,} events; rejects in {report.rejects_file}", markup=False)
    if json:
        print_json(report.as_dict())


@app.command()
def embed(
    everything: Annotated[
        bool, typer.Option("--all", help="Make the vectors of all items anew, also the shop's own")
    ] = False,
    home: Home = None,
) -> None:
    """Give items of the catalogue vectors, made of title, category and description.

    Only items without one get one. Runs on this machine, beside `portrait serve` or without it,
    and fetches nothing; needs the extra `text`.

    Examples: `portrait embed` · `portrait embed --all`
    """
    from services.catalogue.embed import embed as embed_items
    from services.catalogue.embed import load_encoder

    encode = load_encoder()
    with step("vectors of items") as tell:
        made = with_store(
            home, lambda client: embed_items(
                client, encode, lambda done, total: tell(done, total, "items"),
                everything=everything,
            )
        )  # fmt: skip
        tell.note = f"{made:,} vectors made"


@app.command()
def key(
    user_id: Annotated[str, typer.Argument(help="The shop's own user id")], home: Home = None
) -> None:
    """Print a user's pseudonym, the key of their rows in Feast.

    Example: `portrait key 123`
    """
    if not 1 <= len(user_id) <= MAX_ID:
        raise InvalidInputError(f"USER_ID has {len(user_id)} characters: 1 to {MAX_ID} are an id")
    settings = settings_with(home=home)
    print(Pseudonyms.load(settings.home, settings.partitions).of_user(user_id))  # noqa: T201


@app.command()
def env(home: Home = None) -> None:
    """Print the export lines that a plain Feast client needs for the running stores.

    Example: `eval "$(portrait env)" && cd feature_repo && feast feature-views list`
    """
    import shlex

    from services.hosting.embedded import running_url

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
    from services.hosting.workflow import stores

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
    from services.hosting.workflow import build_features, stores
    from training.history import dataset as training_dataset

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
    promote: Annotated[
        bool, typer.Option("--promote", help="Make it production; without, if none is")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train the encoder with Ray Train, write a model directory and make it the candidate.

    Examples: `portrait train --cut-off 2017-12-18` · `portrait train --resume` ·
    `portrait train --promote`
    """
    from services.hosting.workflow import train_model

    settings = settings_with(home=home)
    with step(f"train {recipe}") as tell:
        model, aliases = train_model(
            settings, cut_off=None if cut_off is None else moment(cut_off), recipe=recipe,
            workers=workers, epochs=epochs, seed=seed, resume=resume, is_promoted=promote,
            tell=tell,
        )  # fmt: skip
        tell.note = f"{model}, {' and '.join(aliases.of(model.name))}"
    if "production" not in aliases.of(model.name):
        console.print(f"`portrait model promote {model.name}` makes it production", markup=False)
    if json:
        print_json({"model": str(model), "aliases": aliases.of(model.name)})


@app.command()
def evaluate(
    since: Annotated[str, typer.Option(help="First day of the test")],
    until: Annotated[
        str | None, typer.Option(help="End of the test; default: the last event")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model directory; default: the candidate")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Rank every test basket with the model and its baselines.

    Example: `portrait evaluate --since 2017-12-18 --json`
    """
    from services.hosting.workflow import evaluate_model, metrics_table

    settings = settings_with(home=home, model=model)
    with step("evaluate") as tell:
        result = evaluate_model(
            settings, since=moment(since), until=None if until is None else moment(until), tell=tell
        )
    console.print(metrics_table(result))
    if json:
        print_json(result)


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
    from services.hosting.workflow import materialize_views

    settings = settings_with(home=home)
    with step("materialize") as tell:
        rows = materialize_views(
            settings,
            since=None if since is None else moment(since),
            until=None if until is None else moment(until),
            tell=tell,
        )
        tell.note = ", ".join(f"{view} {count:,}" for view, count in rows.items())
