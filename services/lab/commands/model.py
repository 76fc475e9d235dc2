"""Commands that measure the model against its peers."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError
from services.commands.application import Json, app, print_json
from services.lab.commands.targeting import TARGETING, compare_targeting, keep, refuse_others
from services.runtime.progress import console, step


class StudyChoice(StrEnum):
    """What is measured instead of the peers."""

    ablation = "ablation"
    category = "category"
    freshness = "freshness"
    updating = "updating"


class Schedule(StrEnum):
    """How a study's networks are fitted: `training.lab.comparison.portrait_model.SCHEDULES`."""

    short = "short"
    long = "long"
    wide = "wide"


@app.command()
def compare(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            help="ml100k, completejourney, completejourney_merchandise, online_retail, "
            "amazon_beauty, ml1m, tafeng, taobao, or events; or, of targeting, coupons, lapse, "
            "uplift, categories"
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data sets' files, or the table for `events`: columns user_id, "
            "item_id, event_type, timestamp, optional order_id, quantity, price, discount, "
            "category, brand. Complete Journey is read from the installed package if this is "
            "absent; completejourney_merchandise, coupons and lapse also from a state folder with "
            "its archive, or an empty one for it. uplift: Hillstrom's file"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Fits of each learned model")] = 2,
    budget: Annotated[
        float, typer.Option(min=0, help="Minutes in which each model may try settings")
    ] = 5.0,
    models: Annotated[
        str | None, typer.Option(help="Peers to run, with commas between; default: all that fit")
    ] = None,
    study: Annotated[
        StudyChoice | None,
        typer.Option(
            help="Instead of the peers: what each part of the model is worth, what is bought from "
            "which category next, what a late profile costs, or rules, clusters and the learned "
            "state as ways to update a profile"
        ),
    ] = None,
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="For a study: long where training converges slowly, wide for many items in "
            "plain sequences (hours without a GPU)"
        ),
    ] = Schedule.short,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="For a study: the network's dropout")
    ] = 0.4,
    jobs: Annotated[
        int, typer.Option(min=1, max=64, help="Models fitted at the same time, a core each")
    ] = 1,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps each finished model: what stands there of the same data, "
            "seeds and budget is not run again. Empty it when the code has changed. In it, below "
            "DATASET-…, MODEL.npz has `metrics` (ndcg@10, recall@10, hr@10, mrr) of every "
            "request, portrait.npz also `control:portrait_timed`; requests.npz says in the same "
            "order whose request each is (user, user_id), which of theirs, and when"
        ),
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
    `portrait compare events --data shop.parquet --budget 2 --json` ·
    `portrait compare ml100k --data data/ --study freshness --schedule long` ·
    `portrait compare coupons --seeds 1 --json` · `portrait compare lapse --seeds 1` ·
    `portrait compare uplift --data hillstrom.parquet`

    coupons, lapse and uplift measure targeting (auc, ap, lift@10%, qini) and take --data, --seeds,
    --results and --json only. categories is short for completejourney --study category.
    """
    if dataset in TARGETING:
        refuse_others(context)
        result = compare_targeting(dataset, data, [7 + n for n in range(seeds)])
        if results is not None:
            keep(results, result)
        if json:
            print_json(result)
        return
    if dataset == "categories":
        dataset, study = "completejourney", StudyChoice.category
    from training.lab.comparison import datasets, page
    from training.lab.comparison.run import compare as run
    from training.lab.comparison.tuning import MODELS
    from training.lab.studies.study import Study as Setup
    from training.network.devices import one_thread

    chosen = (
        None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    )
    unknown = sorted({*(chosen or ())} - {*MODELS})
    if unknown:
        raise InvalidInputError(f"--models {', '.join(unknown)}: choose from {', '.join(MODELS)}")
    with step(f"read {dataset}"):
        shop = datasets.open_shop(dataset, data)
    with step(f"compare on {shop.name}") as tell, one_thread():
        numbers = [7 + n for n in range(seeds)]
        if study is None:
            result = run(
                shop, seeds=numbers, budget_s=60 * budget, models=chosen, jobs=jobs,
                resume=resume, tell=tell, say=tell.say,
            )  # fmt: skip
        else:
            setup = Setup(shop, schedule.value, dropout, numbers, tell, tell.say)
            result = _study(study)(setup)
    console.print(_table(result))
    if results is not None:
        page.keep(results, result)
    if json:
        print_json(result)


def _study(study: StudyChoice) -> Callable[..., dict[str, Any]]:
    from training.lab.studies import ablation, category, freshness, updating

    return {
        StudyChoice.ablation: ablation.ablate,
        StudyChoice.category: category.category,
        StudyChoice.freshness: freshness.freshness,
        StudyChoice.updating: updating.updating,
    }[study]


def _table(result: dict[str, Any]) -> Table:
    from training.evaluation.metrics import NAMES

    models = result["rows"] if "study" in result else result["models"]
    table = Table(
        "row" if "study" in result else "model",
        *NAMES,
        title=f"{result['dataset']}",
        title_justify="left",
    )
    for name, row in sorted(models.items(), key=lambda pair: -pair[1]["ndcg@10"]):
        table.add_row(name, *(f"{row[metric]:.4f}" for metric in NAMES))
    return table
