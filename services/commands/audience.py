"""Commands on audiences: what HTTP offers under ``/v1/audiences``, without the service.

Definitions are read from and kept in the running store; figures come from the archive.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.events.schema import now_ms
from services.commands.application import (
    Home,
    Json,
    app,
    as_of_ms,
    print_json,
    read_text,
    settings_with,
)
from services.commands.audited import note_run, with_audited_store
from services.runtime.progress import console, step
from services.runtime.spreadsheet import write_rows

audience = typer.Typer(
    no_args_is_help=True,
    help="Whom a rule describes: keep, count, list. Example: `portrait audience preview tea`",
)
app.add_typer(audience, name="audience")

Name = Annotated[str, typer.Argument(help="Name of the audience")]
AsOf = Annotated[
    str | None, typer.Option(help="A day or RFC 3339 time: members as they were; default: now")
]
_T = TypeVar("_T")


@audience.command("put")
def put(
    name: Name,
    file: Annotated[Path, typer.Argument(help="YAML or JSON definition; - for stdin")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Create an audience, or replace it.

    Example: `portrait audience put lapsing-tea-drinkers tea.yaml`
    """
    from feature_repo.audiences import language

    language.check_name(name)
    definition = language.read_text(read_text(file))
    stored, new = _with_definitions(
        home,
        lambda kept: kept.put(name, definition, now_ms=now_ms()),
        "portrait audience put",
        name,
    )
    console.print(f"{name} {'created' if new else 'replaced'}", markup=False)
    if json:
        print_json({"name": name, "new": new, **language.to_document(stored.definition)})


@audience.command("list")
def list_(home: Home = None, json: Json = False) -> None:
    """List the shop's own audiences.

    Example: `portrait audience list`
    """
    from feature_repo.audiences.plan import plan

    stored, known = _read_definitions(home)
    rows = [
        {"name": each.name, "title": each.definition.title, "consent": each.definition.consent,
         "mode": plan(each.definition, known)["mode"]}
        for each in stored.values()
    ]  # fmt: skip
    table = Table("name", "mode", "consent", "title")
    for row in rows:
        table.add_row(row["name"], row["mode"], ", ".join(row["consent"]) or "-", row["title"])
    console.print(table)
    if json:
        print_json(rows)


@audience.command("show")
def show(name: Name, home: Home = None) -> None:
    """Print a definition as JSON, and how it is kept up.

    Example: `portrait audience show ready-rfm-champions`
    """
    from feature_repo.audiences import language
    from feature_repo.audiences.plan import plan

    _, known = _read_definitions(home)
    if name not in known:
        raise NotFoundError(f"no audience is named {name}")
    print_json({"name": name, **language.to_document(known[name]),
                "plan": plan(known[name], known)})  # fmt: skip


@audience.command("delete")
def delete(name: Name, home: Home = None) -> None:
    """Remove an audience.

    Example: `portrait audience delete lapsing-tea-drinkers`
    """
    _with_definitions(home, lambda kept: kept.delete(name), "portrait audience delete", name)
    console.print(f"{name} removed", markup=False)


@audience.command("preview")
def preview(
    name: Annotated[str | None, typer.Argument(help="Name of the audience; or --file")] = None,
    file: Annotated[
        Path | None, typer.Option(help="YAML or JSON definition that is not stored; - for stdin")
    ] = None,
    as_of: AsOf = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Count the members of an audience, or those that a definition would have.

    Examples: `portrait audience preview tea --as-of 2017-12-01` ·
    `portrait audience preview --file tea.yaml --json`
    """
    from feature_repo.audiences import language
    from services.audiences.definitions import check

    if (name is None) == (file is None):
        raise InvalidInputError("give either the name of an audience or --file")
    settings = settings_with(home=home)
    if file is None:
        found = _ask(home, as_of, lambda answers: answers.preview_of(str(name)))
    else:
        definition = language.read_text(read_text(file))
        stored, _ = _read_definitions(home)
        check("preview", definition, {each.name: each.definition for each in stored.values()})
        kept = language.pseudonymous(definition, _load_pseudonyms(settings))
        found = _ask(home, as_of, lambda answers: answers.preview(kept))
    console.print(
        f"{found['count']:,} of {found['users']:,} users, in {found['took_ms']:.1f} ms "
        f"({found['plan']['mode']})", markup=False,
    )  # fmt: skip
    if json:
        print_json(found)


@audience.command("members")
def members(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many")] = 1000,
    cursor: Annotated[str, typer.Option(help="Go on after this member")] = "",
    as_of: AsOf = None,
    home: Home = None,
) -> None:
    """Print members' pseudonyms, one a line, sorted.

    Example: `portrait audience members tea --limit 100`
    """
    note_run(home, "portrait audience members", target=name)
    for member in _ask(home, as_of, lambda answers: answers.page(name, cursor, limit)):
        print(member)  # noqa: T201


@audience.command("overlap")
def overlap(
    names: Annotated[list[str], typer.Argument(help="Two to ten audiences")],
    as_of: AsOf = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Count what audiences share.

    Example: `portrait audience overlap tea ready-rfm-champions`
    """
    found = _ask(home, as_of, lambda answers: answers.overlap(names))
    table = Table("a", "b", "both", "either", "jaccard")
    for pair in found["pairs"]:
        table.add_row(*(str(pair[key]) for key in ("a", "b", "both", "either", "jaccard")))
    console.print(table)
    if json:
        print_json(found)


@audience.command("export")
def export(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="CSV file to write; default: stdout")] = None,
    as_of: AsOf = None,
    home: Home = None,
) -> None:
    """Write all members as CSV, one column `user`.

    Example: `portrait audience export tea --out tea.csv`
    """
    note_run(home, "portrait audience export", target=name)
    pages = _ask(home, as_of, lambda answers: list(answers.everyone(name)))
    rows = [["user"], *([member] for page in pages for member in page)]
    if out is None:
        write_rows(sys.stdout, rows)
        return
    with out.open("w", newline="") as file:
        write_rows(file, rows)
    console.print(f"{len(rows) - 1:,} members in {out}", markup=False)


@audience.command("score")
def score(as_of: AsOf = None, home: Home = None, json: Json = False) -> None:
    """Ask the model for every user's propensities, for rules on `purchase_7d` and `lapse_28d`.

    Example: `portrait audience score`
    """
    from services.audiences.propensities import refresh_propensities
    from services.hosting.workflow import stores

    settings = settings_with(home=home)
    at_ms = as_of_ms(as_of)
    with stores(settings) as url, step("score every user") as tell:
        count = refresh_propensities(settings, url, now_ms=at_ms, tell=tell)
        tell.note = f"{count:,} propensities"
    if json:
        print_json({"chances": count})


@audience.command("cluster")
def cluster(as_of: AsOf = None, home: Home = None, json: Json = False) -> None:
    """Group every user by the model's vector: `ready-cluster-1` and on, with what sets each apart.

    Example: `portrait audience cluster`
    """
    from dataclasses import asdict

    from services.audiences.clusters import refresh_clusters
    from services.hosting.workflow import stores

    settings = settings_with(home=home)
    at_ms = as_of_ms(as_of)
    with stores(settings) as url, step("cluster every user") as tell:
        found, silhouettes = refresh_clusters(settings, url, now_ms=at_ms, tell=tell)
        tell.note = f"{len(found)} clusters"
    table = Table("audience", "users", "what sets it apart")
    for each in found:
        table.add_row(f"ready-cluster-{each.cluster}", f"{each.users:,}", each.words())
    console.print(table)
    if json:
        print_json({"clusters": [asdict(each) for each in found], "silhouettes":
                    {str(number): value for number, value in silhouettes.items()}})  # fmt: skip


@audience.command("schema")
def schema() -> None:
    """Print the JSON Schema of a definition.

    Example: `portrait audience schema > audience.schema.json`
    """
    from feature_repo.audiences import language

    print_json(language.schema())


def _load_pseudonyms(settings: Any) -> Any:
    from feature_repo.events.pseudonyms import Pseudonyms

    return Pseudonyms.load(settings.home, settings.partitions)


def _with_definitions(
    home: Path | None,
    act: Callable[[Any], Awaitable[_T]],
    command: str | None = None,
    name: str | None = None,
) -> _T:
    """Do something with the stored definitions; the audit keeps a command that is named."""
    from services.audiences.definitions import Definitions

    kept = _load_pseudonyms(settings_with(home=home))
    return with_audited_store(
        home, command, lambda client: act(Definitions(client, kept)), target=name
    )


def _read_definitions(home: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is stored, and every definition by name, the ready ones too."""
    from feature_repo.audiences.ready import ready

    stored = _with_definitions(home, lambda kept: kept.all())
    return stored, {name: each.definition for name, each in stored.items()} | ready()


def _ask(home: Path | None, as_of: str | None, ask: Callable[[Any], _T]) -> _T:
    """Ask an index that is made for it."""
    from feature_repo.audiences.index import Index
    from feature_repo.audiences.ready import ready
    from services.audiences.answers import AudienceAnswers
    from services.audiences.index import READY_CATEGORIES

    at_ms = as_of_ms(as_of)
    _, known = _read_definitions(home)
    with step("read the archive"):
        settings = settings_with(home=home)
        index = Index(settings.home, settings.standing)
    with index:
        given = ready(index.top_categories(READY_CATEGORIES), index.clusters)
        return ask(AudienceAnswers(index, known | given, at_ms))
