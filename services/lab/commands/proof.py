"""Commands that measure what the system does and how fast."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.commands.application import Json, app, print_json
from services.lab.bench.kinds import Bench, Given, measure
from services.runtime.progress import console


@app.command()
def bench(
    what: Annotated[
        Bench,
        typer.Argument(
            help="service: latency over HTTP; updates: the update path; "
            "recommend: recommendations of small and large shops; "
            "api: every endpoint on a demo's state; "
            "explain: whether explanations are faithful; "
            "audiences: counting whom a rule describes; "
            "campaigns: deciding about a user; analytics: analyses of behaviour; soak: for long; "
            "lateness: what late events do to profiles; train: the training loop; "
            "materialize: features into the store; offline: the point-in-time join; "
            "start: until the service is ready; erase: people erased beside ingest"
        ),
    ] = Bench.service,
    model: Annotated[
        Path | None,
        typer.Option(help="Model directory, for updates, explain, soak, lateness, start"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="State folder with an archive, for updates, lateness, audiences, "
            "analytics; a demo's, for api (default: .portrait/demo); for train, explain a table "
            "of events. Only read"
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the soak")] = 20.0,
    plot: Annotated[Path | None, typer.Option(help="SVG file that the soak draws")] = None,
    items: Annotated[
        int | None,
        typer.Option(
            min=1000,
            max=1_000_000,
            help="For train: a made-up catalogue of so many; for recommend: a shop of so many too",
        ),
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="For recommend: 50,000 requests in a row too")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="For recommend: two other servers too; for train: RecBole's GRU4Rec. They are "
            "installed into a throw-away environment",
        ),
    ] = False,
    before: Annotated[
        Path | None, typer.Option(help="For api: another checkout, measured in turns with this")
    ] = None,
    only: Annotated[
        str, typer.Option(help="For api: endpoints whose method and path have this in them")
    ] = "",
    events: Annotated[
        int | None,
        typer.Option(min=1000, max=10_000_000, help="For erase: events before; default: 150,000"),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a service started for the purpose, in a folder of its own.

    Examples: `portrait bench service --json` · `portrait bench updates --json` ·
    `portrait bench recommend --json` · `portrait bench recommend --items 1000000 --json` ·
    `portrait bench recommend --drift --peers --json` · `portrait bench start --json` ·
    `portrait bench api --data .portrait/demo --json` ·
    `portrait bench api --only recommendations --before ../portrait-before --json` ·
    `portrait bench soak --minutes 20 --plot docs/soak.svg` · `portrait bench lateness --json` ·
    `portrait bench train --data ratings.parquet --json` ·
    `portrait bench train --peers --json` · `portrait bench train --items 1000000 --json` ·
    `portrait bench materialize --json` · `portrait bench offline --json` ·
    `portrait bench audiences --json` · `portrait bench campaigns --json` ·
    `portrait bench analytics --json` · `portrait bench erase --events 1500000 --json`
    """
    from feature_repo.errors import InvalidInputError
    from services.lab.bench.service import table

    if items is not None and (what not in (Bench.train, Bench.recommend) or data is not None):
        raise InvalidInputError(
            "--items is for `bench train` without --data, and `bench recommend`: leave one out"
        )
    if drift and what is not Bench.recommend:
        raise InvalidInputError("--drift is for `bench recommend`: leave it out")
    if peers and what is not Bench.recommend and (what is not Bench.train or items is not None):
        raise InvalidInputError(
            "--peers is for `bench recommend`, and `bench train` without --items: leave it out"
        )
    if (before is not None or only) and what is not Bench.api:
        raise InvalidInputError("--before and --only are for `bench api`: leave them out")
    if events is not None and what is not Bench.erase:
        raise InvalidInputError("--events is for `bench erase`: leave it out")
    given = Given(model, data, minutes, plot, items, drift, peers, before, only, events)
    result = measure(what, given)
    console.print(table(result))
    if json:
        print_json(result)


@app.command()
def chaos(
    seconds: Annotated[float, typer.Option(min=1, help="Longest time of the load")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the load and the harm")] = 1,
    events: Annotated[
        int | None, typer.Option(min=1, help="End the load at so many acknowledged events")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Clients that send")] = 4,
    redis_kills: Annotated[
        bool, typer.Option("--redis-kills", help="kill -9 of the store too")
    ] = False,
    power_cuts: Annotated[
        bool, typer.Option("--power-cuts", help="The store also forgets its last second of writes")
    ] = False,
    durability: Annotated[
        Literal["everysec", "always"], typer.Option(help="fsync policy of the store")
    ] = "everysec",
    model: Annotated[
        Path | None, typer.Option(help="Model directory; absent: no learned states")
    ] = None,
    break_: Annotated[
        Literal["fence", "last-entry", "dedup", "kept-rows"] | None,
        typer.Option("--break", help="Run the service without one guard, to see it caught"),
    ] = None,
    json: Json = False,
) -> None:
    """Kill and pause the service's processes under load, then check every acknowledged event.

    Two gateways and two updaters are killed with -9 and paused past their lease while
    clients send, and send again. Then log, archive and profiles are read from scratch: exit
    code 0 if nothing is lost, doubled, out of order or wrong, 1 if something is.

    `--break fence` leaves out the comparisons of epoch and cursor in the updater's commit,
    `last-entry` its look at the log (and cuts the store's power), `dedup` the recognition
    of known event ids, `kept-rows` that rows kept in memory go with the lease and are compared.

    Examples: `portrait chaos --seconds 60 --seed 7 --json` ·
    `portrait chaos --events 1000000 --seconds 3600 --redis-kills` ·
    `portrait chaos --break fence`
    """
    from feature_repo.errors import PortraitError
    from services.lab.bench.service import table
    from services.lab.chaos.plan import FaultPlan
    from services.lab.chaos.result import verdict
    from services.lab.chaos.run import chaos as carry_out
    from services.runtime.signals import Signals

    plan = FaultPlan(
        seconds=seconds, seed=seed, clients=clients, events=events, guard=break_,
        store_kills=redis_kills, power_cuts=power_cuts, durability=durability, model=model,
    )  # fmt: skip
    with Signals():  # SIGTERM too ends servers and folders in order
        result = carry_out(plan)
    console.print(table({k: v for k, v in result.items() if k != "examples"}))
    for example in result["examples"]:
        console.print(example, markup=False)
    if json:
        print_json(result)
    found = verdict(result)
    if found is not None:
        raise PortraitError(f"chaos found: {found}")
