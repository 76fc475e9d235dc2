"""Commands that measure the model against its peers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError
from services.command import Json, app, print_json
from services.progress import console, step


@app.command()
def compare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="ml100k, completejourney, online_retail, amazon_beauty, ml1m, tafeng, taobao, "
            "or events"
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data sets' files, or the table for `events`: columns user_id, "
            "item_id, event_type, timestamp, optional order_id, quantity, price, category, brand. "
            "For completejourney a state folder with its archive; absent: the installed package"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Fits of each learned model")] = 2,
    budget: Annotated[
        float, typer.Option(min=0, help="Minutes in which each model may try settings")
    ] = 5.0,
    models: Annotated[
        str | None, typer.Option(help="Peers to run, with commas between; default: all that fit")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for DATASET.json and accuracy.md, which shows all in it"),
    ] = None,
    json: Json = False,
) -> None:
    """Rank every test event with Portrait and its peers, each tuned by the same budget.

    All get the same events, split, candidates, mask and metrics; settings are chosen on the
    validation period, everything is reported on the test period.

    Examples: `portrait compare ml100k --data data/ --json` ·
    `portrait compare events --data shop.parquet --budget 2 --json`
    """
    from training.compare import datasets, page
    from training.compare.run import PEERS
    from training.compare.run import compare as run
    from training.devices import one_thread

    chosen = (
        None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    )
    unknown = sorted(set(chosen or ()) - {*PEERS, "portrait"})
    if unknown:
        raise InvalidInputError(f"--models {', '.join(unknown)}: choose from {', '.join(PEERS)}")
    with step(f"read {dataset}"):
        shop = datasets.open_shop(dataset, data)
    with step(f"compare on {shop.name}") as tell, one_thread():
        result = run(
            shop, seeds=[7 + n for n in range(seeds)], budget_s=60 * budget, models=chosen,
            tell=tell, say=tell.say,
        )  # fmt: skip
    console.print(_table(result))
    if results is not None:
        page.keep(results, result)
    if json:
        print_json(result)


def _table(result: dict[str, object]) -> Table:
    from training.metrics import NAMES

    models = result["models"]
    assert isinstance(models, dict)
    table = Table("model", *NAMES, title=f"{result['dataset']}", title_justify="left")
    for name, row in sorted(models.items(), key=lambda pair: -pair[1]["ndcg@10"]):
        table.add_row(name, *(f"{row[metric]:.4f}" for metric in NAMES))
    return table
