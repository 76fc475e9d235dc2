"""Commands on erasure: people erased by the running service, and the receipts of it."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from feature_repo.errors import InvalidInputError
from feature_repo.events.fields import MAX_ID
from services.commands.application import Home, Json, print_json, read_text
from services.commands.privacy import privacy
from services.commands.running_service import Url, running_service
from services.runtime.progress import console, step

if TYPE_CHECKING:
    from services.client import Client
    from services.erasure.schemas import ErasureReceipt


@privacy.command("erase")
def erase(
    user: Annotated[list[str] | None, typer.Argument(help="The shop's own user ids")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of more ids, one a line; - for stdin")
    ] = None,
    suppress: Annotated[
        bool, typer.Option(help="Refuse their events for ever; else the ids may begin anew")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is done")] = False,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Let the running service erase users, up to 5,000 at once; no reading brings them back.

    Once it returns every read of them is refused; the rest follows by itself, `--wait` or not.

    Examples: `portrait privacy erase 123 --wait` ·
    `portrait privacy erase --file ids.txt --no-suppress`
    """
    ids = _list_ids(user or (), file)
    with running_service(url, home) as client:
        begun = client.privacy.erase_all(ids, suppress=suppress)
        name = begun["erasure_id"]
        told = f"{name}: {len(ids):,} ids are refused from now on"
        console.print(f"{told}; `portrait privacy erasures {name}` shows how far it is")
        found = _wait(client, name) if wait else None
    if found is not None:
        _show(found)
    if json:
        print_json(begun if found is None else found)


@privacy.command("erasures")
def erasures(
    erasure_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of one: its receipt")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Erasures to list")] = 100,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the erasures, the latest first, or show the receipt of one.

    Examples: `portrait privacy erasures` · `portrait privacy erasures er-1795737846570-9f86d081`
    """
    with running_service(url, home) as client:
        if erasure_id is not None:
            receipt = client.privacy.erasure(erasure_id)
            _show(receipt)
            if json:
                print_json(receipt)
            return
        page = client.privacy.erasures(limit=limit)
    table = Table(Column("id", no_wrap=True, min_width=31), "status", "asked for", "done", "ids")
    for one in page["erasures"]:
        table.add_row(
            one["erasure_id"], one["status"], one["requested_at"], one["done_at"] or "-",
            f"{one['users']:,}",
        )  # fmt: skip
    console.print(table)
    if page["next_cursor"] is not None:
        console.print(f"there are more than {limit:,}: give a greater --limit, up to 1,000")
    if json:
        print_json(page)


def _list_ids(given: Iterable[str], file: Path | None) -> list[str]:
    from services.erasure.requests import MOST_USERS

    # A mark of byte order, as spreadsheets write it, is no part of the first id.
    lines = () if file is None else read_text(file).removeprefix("\ufeff").splitlines()
    ids = list(dict.fromkeys([*given, *filter(None, (line.strip() for line in lines))]))
    if not ids:
        where = "name a user, or give --file" if file is None else f"{file} holds none, one a line"
        raise InvalidInputError(f"no ids to erase: {where}")
    if len(ids) > MOST_USERS:
        raise InvalidInputError(
            f"{len(ids):,} ids are more than the {MOST_USERS:,} of one erasure: divide the list"
        )
    for one in ids:
        if not 1 <= len(one) <= MAX_ID:
            told = f"{one[:20]!r} has {len(one):,} characters"
            raise InvalidInputError(f"{told}: 1 to {MAX_ID} are an id, one a line")
    return ids


def _wait(client: "Client", name: str) -> "ErasureReceipt":
    with step(f"erase {name}") as tell:

        def look(found: "ErasureReceipt") -> None:
            tell(0, 0, f"places so far: {len(found['stores'])}")

        found = client.privacy.wait_erased(name, timeout_s=math.inf, progress=look)
        tell.note = f"{sum(one['removed'] for one in found['stores']):,} removed"
    return found


def _show(receipt: "ErasureReceipt") -> None:
    head = f"{receipt['erasure_id']}: {receipt['status']}, {receipt['users']:,} ids and"
    console.print(f"{head} {receipt['linked']:,} anonymous ids of theirs", markup=False)
    if receipt["together"] > 1:
        shared = f"counts are those of {receipt['together']:,} erasures, carried out together"
        console.print(shared, markup=False)
    table = Table("place", "found", "removed", "what is left goes", "note")
    for one in receipt["stores"]:
        table.add_row(
            one["store"], f"{one['found']:,}", f"{one['removed']:,}",
            one.get("waits_until", "-"), escape(one.get("note", "")),
        )  # fmt: skip
    console.print(table)
    if receipt["models"]:
        models = ", ".join(receipt["models"])
        console.print(f"trained with earlier data, train again: {models}", markup=False)
