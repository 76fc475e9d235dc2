"""Commands on models: which there are, their cards, and which is production."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from feature_repo.errors import NotFoundError
from services.commands.application import Home, Json, app, print_json, settings_with, with_store
from services.commands.audited import with_audited_store
from services.runtime.progress import console

if TYPE_CHECKING:
    from services.models.promotion import Promotion
    from services.models.registry import AliasChange, Aliases
    from services.models.schemas import EncodingProgress

model = typer.Typer(
    no_args_is_help=True,
    help="Models: list, show, promote, shadow, rollback, remove. Example: `portrait model list`",
)
app.add_typer(model, name="model")

Name = Annotated[str, typer.Argument(help="Name of the model; see `portrait model list`")]
Force = Annotated[bool, typer.Option("--force", help="In spite of what the gate found")]


@model.command("list")
def list_(
    changes: Annotated[int, typer.Option(min=0, max=1000, help="Show so many last changes")] = 0,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the models and their aliases.

    Examples: `portrait model list` · `portrait model list --changes 10`
    """
    from msgspec import to_builtins

    from services.models import folder, registry, row_counts

    async def read(client: Any) -> "tuple[Aliases, list[AliasChange], EncodingProgress]":
        noted = await registry.list_changes(client, changes) if changes else []
        counts = row_counts.sum_up(await row_counts.read_async(client))
        return await registry.read_async(client), noted, counts

    found, noted, encoding = with_store(home, read)
    models = folder.list_models(settings_with(home=home).home)
    table = Table(Column("name", no_wrap=True), "aliases", "version", "recipe", "made")
    for each in models:
        table.add_row(
            escape(each.name), ", ".join(found.of(each.name)) or "-", each.version,
            str(each.manifest.get("recipe") or "-"), each.manifest.get("created_at") or "-",
        )  # fmt: skip
    console.print(table)
    if encoding["left"] or encoding["short"]:
        told = f"{encoding['left']:,} of {encoding['rows']:,} rows are still to be encoded anew"
        more = f", {encoding['short']:,} cannot be" if encoding["short"] else ""
        console.print(told + more, markup=False)
    if found.previous is not None:
        console.print(f"a rollback makes {found.previous.name} production", markup=False)
    for one in noted:
        was = f", before {one.before}" if one.before else ""
        told = f"{one.at} {one.by}: {one.action} {one.name} {one.alias}{was}"
        console.print(told, markup=False)
    if json:
        names = [
            {"name": m.name, "version": m.version, "aliases": found.of(m.name)} for m in models
        ]
        rows = [to_builtins(one) for one in noted]
        print_json({"models": names, **found.names(), "changes": rows, "encoding": encoding})


@model.command("show")
def show(name: Name, home: Home = None, json: Json = False) -> None:
    """Print a model's card: as Markdown, or as one line of JSON.

    Example: `portrait model show fused-20171218-7`
    """
    from services.erasure.ledger import list_done
    from services.models import cards, folder, registry

    settings = settings_with(home=home)
    found = folder.find(settings.home, name)
    if found is None:
        raise NotFoundError(
            f"there is no model {name!r}: `portrait model list` names those there are"
        )
    aliases = with_store(home, registry.read_async)
    done = [cards.ErasureDone(*each) for each in list_done(settings.home)]
    card = cards.make_card(settings.home, found, aliases, done)
    if json:
        print_json(card)
    else:
        print(cards.to_markdown(card), end="")  # noqa: T201


@model.command("promote")
def promote(
    name: Name,
    alias: Annotated[
        Literal["production", "shadow", "candidate"], typer.Option(help="What it is to be")
    ] = "production",
    force: Force = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a model production, if its gate lets it; a running service follows within 5 seconds.

    Examples: `portrait model promote fused-20171218-7` ·
    `portrait model promote fused-20171218-7 --alias candidate`
    """
    _change(
        home, "promote", lambda on: on.promote(name, alias, is_forced=force), target=name, json=json
    )  # fmt: skip


@model.command("shadow")
def shadow(name: Name, force: Force = False, home: Home = None, json: Json = False) -> None:
    """Give a model the alias `shadow`; it answers nobody.

    Example: `portrait model shadow fused-20171218-7`
    """
    _change(
        home, "shadow", lambda on: on.promote(name, "shadow", is_forced=force), target=name,
        json=json,
    )  # fmt: skip


@model.command("rollback")
def rollback(home: Home = None, json: Json = False) -> None:
    """Make the model production again that was it before; a service follows within 5 seconds.

    Example: `portrait model rollback`
    """
    _change(home, "rollback", lambda on: on.roll_back(), json=json)


@model.command("remove")
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Though rows follow it")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove a model that has no alias, and that no rows follow by the last count.

    Example: `portrait model remove fused-20171211-7`
    """
    _change(home, "remove", lambda on: on.remove(name, is_forced=force), target=name, json=json)


def _change(
    home: "Home",
    command: str,
    act: "Callable[[Promotion], Awaitable[tuple[Aliases, Aliases]]]",
    *,
    target: str | None = None,
    json: bool,
) -> None:
    """Change the aliases and print what they are then."""
    from services.audit.machine import find_actor
    from services.models.promotion import Promotion

    settings = settings_with(home=home)
    before, after = with_audited_store(
        home, f"portrait model {command}",
        lambda client: act(Promotion(client, settings.home, find_actor(), settings.model)),
        target=target, made=lambda found: found[1].names()["production"] if not target else None,
    )  # fmt: skip
    for alias, name in after.names().items():
        was = before.names()[alias]
        told = f", before {was}" if was not in (None, name) else ""
        console.print(f"{alias}: {name or 'none'}{told}", markup=False)
    if json:
        print_json({**after.names(), "previous": before.names()["production"]})
