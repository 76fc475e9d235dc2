"""Commands on the audit trail."""

from typing import Annotated, Any

import typer

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.pseudonyms import Pseudonyms
from services.commands.application import Home, Json, app, print_json, settings_with, with_store
from services.runtime.progress import console

audit = typer.Typer(
    no_args_is_help=True,
    help="Who used which key for what. Example: `portrait audit verify`",
)
app.add_typer(audit, name="audit")


@audit.command("name")
def name(
    user_id: Annotated[str, typer.Argument(help="The shop's own user id")], home: Home = None
) -> None:
    """Print what the audit calls a user: the field `user` of its entries.

    Example: `portrait audit name 123`
    """
    from services.audit.recorder import name_user

    settings = settings_with(home=home)
    print(name_user(Pseudonyms.load(settings.home, settings.partitions), user_id))  # noqa: T201


@audit.command("verify")
def verify(home: Home = None, json: Json = False) -> None:
    """Follow the chain of the audit's lines; exit code 1 and the first broken line if it breaks.

    Where it begins and ends is compared with what the store keeps.

    Example: `portrait audit verify`
    """
    from services.audit.chain import ChainEnd, read_waiting
    from services.audit.trail import Trail
    from services.audit.writer import GROUPS, HEAD, LOG

    trail = Trail(settings_with(home=home).home)
    sizes = trail.sizes()  # before the store is asked: the service may be writing

    async def ask(client: Any) -> tuple[Any, Any]:
        return await client.xrange(LOG, count=GROUPS), await client.get(HEAD)

    try:
        groups, stored = with_store(home, ask)
        unknown = "the store keeps no end of it" if stored is None else None
    except StoreUnavailableError as error:
        groups, stored, unknown = [], None, str(error)
    known = None if stored is None else ChainEnd.decode(stored)
    checked = trail.check(known, read_waiting(groups), sizes)
    if json:
        told = {"lines": checked.lines, "broken": checked.broken, "compared": known is not None}
        print_json(told)
    if unknown is not None:
        console.print(f"not compared with the store: {unknown}", markup=False)
    if checked.broken is not None:
        console.print(f"broken after {checked.lines:,} whole lines: {checked.broken}", markup=False)
        raise typer.Exit(1)
    console.print(f"whole: {checked.lines:,} lines", markup=False)
