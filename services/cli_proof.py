"""Commands that measure and that try to break: bench, chaos."""

from typing import Annotated, Literal

import typer

from services.command import Json, app, print_json
from services.progress import console


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
        print_json(result)
