"""Commands that measure what the system does and how fast."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.command import Json, app, print_json
from services.progress import console


@app.command()
def bench(
    what: Annotated[
        Literal["service", "updates", "soak"],
        typer.Argument(help="service: latency over HTTP; updates: the update path; soak: for long"),
    ] = "service",
    model: Annotated[Path | None, typer.Option(help="Model directory, for updates, soak")] = None,
    data: Annotated[
        Path | None, typer.Option(help="State folder with an archive, for updates; only read")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the soak")] = 20.0,
    plot: Annotated[Path | None, typer.Option(help="SVG file that the soak draws")] = None,
    json: Json = False,
) -> None:
    """Measure a service started for the purpose, in a folder of its own.

    Examples: `portrait bench service --json` · `portrait bench updates --json` ·
    `portrait bench soak --minutes 20 --plot docs/soak.svg`
    """
    from services.bench import measure, table

    result = measure(what, model=model, data=data, minutes=minutes, plot=plot)
    console.print(table(result))
    if json:
        print_json(result)
