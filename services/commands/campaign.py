"""Commands on campaigns: what HTTP offers under ``/v1/campaigns``.

Campaigns are read from and kept in the running store, reports come from the archive; a decision
needs the running service, which alone knows live profiles and logs it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from feature_repo.errors import InvalidRuleError
from feature_repo.events.schema import now_ms
from services.commands.application import (
    Home,
    Json,
    app,
    print_json,
    read_text,
    settings_with,
)
from services.commands.audited import with_audited_store
from services.commands.running_service import Url, running_service
from services.runtime.progress import console, step

campaign = typer.Typer(
    no_args_is_help=True,
    help="Offers to audiences: keep, decide, report. Example: `portrait campaign report spring`",
)
app.add_typer(campaign, name="campaign")

Name = Annotated[str, typer.Argument(help="Name of the campaign")]


@campaign.command("put")
def put(
    name: Name,
    file: Annotated[Path, typer.Argument(help="YAML or JSON campaign; - for stdin")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Create a campaign, or replace it.

    Example: `portrait campaign put spring spring.yaml`
    """
    from feature_repo.audiences.language import check_name, parse_yaml
    from services.campaigns import language

    check_name(name)
    read = language.read(parse_yaml(read_text(file)))
    _check_audience(home, read.audience)
    stored, new = _campaigns(
        home, lambda kept: kept.put(name, read, now_ms=now_ms()), "portrait campaign put", name
    )
    console.print(f"{name} {'created' if new else 'replaced'}", markup=False)
    if json:
        print_json({"name": name, "new": new, **language.to_document(stored.campaign)})


@campaign.command("list")
def list_(home: Home = None, json: Json = False) -> None:
    """List campaigns.

    Example: `portrait campaign list`
    """
    from services.campaigns.definitions import MAX_CAMPAIGNS

    rows = [
        {"name": each.name, "audience": each.campaign.audience, "channel": each.campaign.channel,
         "offer": each.campaign.offer.id, "active": each.campaign.active}
        for each in _campaigns(home, lambda kept: kept.page("", MAX_CAMPAIGNS))
    ]  # fmt: skip
    table = Table("name", "audience", "channel", "offer", "active")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if json:
        print_json(rows)


@campaign.command("show")
def show(name: Name, home: Home = None) -> None:
    """Print a campaign as JSON.

    Example: `portrait campaign show spring`
    """
    from services.campaigns import language

    stored = _campaigns(home, lambda kept: kept.get(name))
    print_json({"name": name, **language.to_document(stored.campaign)})


@campaign.command("delete")
def delete(name: Name, home: Home = None) -> None:
    """Remove a campaign.

    Example: `portrait campaign delete spring`
    """
    _campaigns(home, lambda kept: kept.delete(name), "portrait campaign delete", name)
    console.print(f"{name} removed", markup=False)


@campaign.command("decide")
def decide(
    name: Name,
    user_id: Annotated[str, typer.Argument(help="The shop's own user id")],
    decision_id: Annotated[str | None, typer.Option(help="A name for the decision")] = None,
    url: Url = None,
) -> None:
    """Ask the running service what to do about a user, and print its answer.

    Example: `portrait campaign decide spring 123`
    """
    with running_service(url) as client:
        print_json(client.campaigns.decide(name, user_id, decision_id=decision_id))


@campaign.command("rank")
def rank(
    name: Name,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Users to print")] = 10,
    url: Url = None,
) -> None:
    """Let the running service rank the audience, choose the best, and print them.

    Example: `portrait campaign rank spring --limit 20`
    """
    with running_service(url) as client:
        print_json(client.campaigns.rank(name, limit=limit))


@campaign.command("report")
def report(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, arms.svg and qini.svg")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say what a campaign has brought, from the archive.

    Example: `portrait campaign report spring --out out/spring`
    """
    from feature_repo.audiences.index import Index
    from services.campaigns import report as campaign_report

    stored = _campaigns(home, lambda kept: kept.get(name))
    with step("read the archive"):
        settings = settings_with(home=home)
        index = Index(settings.home, settings.standing)
    with index:
        found: Any = campaign_report.report(index, stored, now_ms())
    table = Table("outcome", "treated", "control", "difference", "95 %, CUPED", "in all")
    for outcome, column in (("conversion", "conversion"), ("revenue", "revenue_per_user")):
        measure = found[outcome]
        if measure is not None:
            one, total = measure["cuped"], measure["incremental_cuped"]
            table.add_row(
                outcome, *(f"{found[arm][column]:.4f}" for arm in ("treated", "control")),
                f"{one['difference']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}",
                f"{total['difference']:+.1f}",
            )  # fmt: skip
    console.print(table)
    users = f"{found['treated']['users']:,} treated, {found['control']['users']:,} control users"
    console.print(f"{found['claim']}: {users}", markup=False)
    for caveat in found["caveats"]:
        console.print(f"but {caveat}", markup=False)
    if out is not None:
        _write(out, found)
    if json:
        print_json(found)


@campaign.command("schema")
def schema() -> None:
    """Print the JSON Schema of a campaign.

    Example: `portrait campaign schema > campaign.schema.json`
    """
    from services.campaigns import language

    print_json(language.schema())


def _write(out: Path, found: dict[str, Any]) -> None:
    import orjson

    from services.campaigns import plots

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    (out / "arms.svg").write_text(plots.arms(found))
    if found["qini"] is not None:
        (out / "qini.svg").write_text(plots.qini(found["qini"]["share"], found["qini"]["gain"]))


def _check_audience(home: Path | None, name: str) -> None:
    from services.commands.audience import _read_definitions

    if name not in _read_definitions(home)[1]:
        detail = f"no audience is named {name}"
        raise InvalidRuleError([{"pointer": "/audience", "detail": detail}])


def _campaigns(
    home: Path | None, act: Any, command: str | None = None, name: str | None = None
) -> Any:
    """Do something with the stored campaigns; the audit keeps a command that is named."""
    from services.campaigns.definitions import Campaigns

    return with_audited_store(home, command, lambda client: act(Campaigns(client)), target=name)
