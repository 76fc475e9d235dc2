"""Targeting models under `portrait compare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import typer
from rich.table import Table

from feature_repo.errors import InvalidInputError
from services.runtime.progress import console, step

TARGETING: Final = ("coupons", "lapse", "uplift")
_TAKEN: Final = ("dataset", "data", "seeds", "results", "json")


def refuse_others(context: typer.Context) -> None:
    """Refuse options of `portrait compare` that mean nothing to a targeting model.

    Raises
    ------
    InvalidInputError
        If one was given.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in _TAKEN:
            raise InvalidInputError(
                f"--{name} means nothing to {', '.join(TARGETING)}: leave it out"
            )


def compare_targeting(name: str, data: Path | None, seeds: Sequence[int]) -> dict[str, Any]:
    """Run one of `TARGETING`, and print its tables.

    Raises
    ------
    InvalidInputError
        If the data cannot be used.
    """
    from training.lab.studies import coupons, lapse, uplift
    from training.network.devices import one_thread

    with step(f"compare {name}") as tell, one_thread():
        if name == "uplift":
            result = uplift.uplift(data, seeds=seeds, tell=tell, say=tell.say)
        else:
            run = {"coupons": coupons.coupons, "lapse": lapse.lapse}[name]
            with TemporaryDirectory(prefix="portrait-compare-") as folder:
                result = run(data or Path(folder), seeds=seeds, tell=tell, say=tell.say)
    _show(name, result)
    for part, subset in result.get("subsets", {}).items():
        _show(f"{name}, {part}", subset)
    return result


def keep(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the result and the page on accuracy."""
    from training.lab.comparison import page

    page.keep(folder, result)


def _show(title: str, result: Mapping[str, Any]) -> None:
    models = result["models"]
    metrics = [name for name in next(iter(models.values())) if name != "ci"]
    table = Table("model", *metrics, "95 %", title=title, title_justify="left")
    for name, row in sorted(models.items(), key=lambda pair: -pair[1][metrics[0]]):
        low, high = row["ci"][metrics[0]]
        table.add_row(name, *(f"{row[m]:.4f}" for m in metrics), f"{low:.4f} to {high:.4f}")
    console.print(table)
    over = result["over_best_peer"][metrics[0]]
    low, high = over["ci"]
    console.print(
        f"{metrics[0]} less {over['peer']}: {over['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    )
