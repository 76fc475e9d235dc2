"""Commands on API keys: what HTTP offers under ``/v1/keys``, asked of the store itself."""

from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Column, Table

from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import now_ms
from services.commands.application import Home, Json, app, print_json, with_store
from services.commands.audited import with_audited_store
from services.runtime.progress import console

if TYPE_CHECKING:
    from services.http.key_schemas import KeyMade

keys = typer.Typer(
    no_args_is_help=True,
    help="API keys: create, list, rotate, revoke. Example: `portrait keys create shop server`",
)
app.add_typer(keys, name="keys")

KeyId = Annotated[str, typer.Argument(help="Id of the key; see `portrait keys list`")]


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who holds the key")],
    scope: Annotated[str, typer.Argument(help="write, analyst, server or admin")],
    expires_at: Annotated[
        str | None, typer.Option(help="A day or an RFC 3339 time; default: never")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help="Origin of pages that may use it; default: any")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once; the store keeps its digest.

    Examples: `portrait keys create backend server` ·
    `portrait keys create web write --origin https://shop.example --expires-at 2027-01-01`
    """
    from services.http.key_records import KeyRecords
    from services.http.key_requests import NewKey

    given = {"name": name, "scope": scope, "expires_at": expires_at, "origins": origin or []}
    try:
        wanted = NewKey.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        told = first["msg"].removeprefix("Value error, ")
        raise InvalidInputError(f"{first['loc'][0]}: {told}") from None
    made = with_audited_store(
        home, "portrait keys create", lambda client: KeyRecords(client).create(wanted, now_ms()),
        made=lambda key: key["id"],
    )  # fmt: skip
    _show(made, json)


@keys.command("list")
def list_(home: Home = None, json: Json = False) -> None:
    """List the keys, without the keys themselves.

    Example: `portrait keys list`
    """
    from services.http.key_records import KeyRecords

    found = with_store(home, lambda client: KeyRecords(client).list(now_ms()))
    table = Table(
        Column("id", no_wrap=True, min_width=12),
        "name",
        "scope",
        "state",
        "expires",
        "last used",
        "origins",
    )
    for one in found:
        table.add_row(
            one["id"], escape(one["name"]), one["scope"], one["state"],
            one["expires_at"] or "never", one["last_used_at"] or "-",
            " ".join(one["origins"]) or "any",
        )  # fmt: skip
    console.print(table)
    if json:
        print_json(found)


@keys.command("rotate")
def rotate(
    key_id: KeyId,
    overlap_s: Annotated[
        int, typer.Option(min=0, max=2_592_000, help="For so long the old key works on, seconds")
    ] = 86_400,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a key in the place of another and print it, once.

    Example: `portrait keys rotate 5f1c9e3a07b2 --overlap-s 3600`
    """
    from services.http.key_records import KeyRecords

    made = with_audited_store(
        home, "portrait keys rotate",
        lambda client: KeyRecords(client).rotate(key_id, overlap_s, now_ms()), target=key_id,
    )  # fmt: skip
    _show(made, json)


@keys.command("revoke")
def revoke(key_id: KeyId, home: Home = None) -> None:
    """End a key: within five seconds it is refused.

    Example: `portrait keys revoke 5f1c9e3a07b2`
    """
    from services.http.key_records import KeyRecords

    with_audited_store(
        home, "portrait keys revoke", lambda client: KeyRecords(client).revoke(key_id, now_ms()),
        target=key_id,
    )  # fmt: skip
    console.print(f"{key_id} revoked", markup=False)


def _show(made: "KeyMade", json: bool) -> None:
    if json:
        print_json(made)
    else:
        told = f"{made['scope']} key {made['id']} for {made['name']}, shown this once:"
        console.print(told, markup=False)
        print(made["key"])  # noqa: T201
