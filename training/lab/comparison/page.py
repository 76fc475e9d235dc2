"""The page on accuracy: made from the results of comparisons, and nothing else."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from training.evaluation.metrics import NAMES
from training.lab.comparison import targeting_page
from training.lab.comparison.study_page import STUDIES

_HEAD = """# Accuracy

Made by `portrait compare DATASET --results docs/accuracy` from the files beside it; not edited.

Every model gets the same events, split, candidates and mask, is asked for the whole ranking at
the same requests with the history applied up to each, and is measured by the same code. Settings
are chosen by NDCG@10 on the validation period within the same time for each; a trial that has
begun is finished. Fitted on the training period only. Learned models are fitted once per seed and
averaged by request. Portrait's epochs, and the numbers that weigh its memories, come from the
validation period too. Intervals: 95 %, paired bootstrap over users. No part of the comparison, but
asked of the same networks: `portrait_timed` is told the time of each request, as the service is;
`portrait_shuffled` finds what came before each request in random order. `gbdt` is LightGBM's
LambdaRank over hand-made facts of a hundred or two candidates, live popularity among them;
`gbdt_timed` is told the time of each request too, and stands against `portrait_timed`.
"""


def machine() -> str:
    """Return the machine in words."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return (
        f"{platform.machine()}, {cores} cores, {gpu}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def keep(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write a result to ``folder`` and make the page beside the folder again."""
    folder.mkdir(parents=True, exist_ok=True)
    text = orjson.dumps(dict(result), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    name = ".".join([result["dataset"], *([result["study"]] if "study" in result else [])])
    (folder / f"{name}.json").write_bytes(text + b"\n")
    found = [orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    parts = [section(each) for each in found if "study" not in each]
    for study, (words, part) in {**STUDIES, **targeting_page.STUDIES}.items():
        of_study = [each for each in found if each.get("study") == study]
        if of_study:
            parts += [words, *(part(each, folder) for each in of_study)]
    page = folder.with_suffix(".md")
    page.write_text("\n".join([_HEAD, *parts]))
    return page


def section(result: Mapping[str, Any]) -> str:
    """Return one data set's part of the page."""
    split, models = result["split"], result["models"]
    lines = [
        f"## {result['dataset']}",
        f"{result['users']:,} users, {result['events']:,} events, {result['items']:,} candidates; "
        f"{split['how']}; {split['test_requests']:,} requests of {split['test_users']:,} users; "
        f"seen items {split['seen_items']}. {result['machine']}; "
        f"seeds {', '.join(map(str, result['tuning']['seeds']))}; "
        f"{result['tuning']['budget_s'] / 60:g} min of tuning each.",
        "",
        "| model | " + " | ".join(NAMES) + " | 95 % of NDCG@10 | settings tried | seconds |",
        "|---|" + "---|" * (len(NAMES) + 3),
    ]
    for name, row in sorted(models.items(), key=lambda pair: -pair[1]["ndcg@10"]):
        low, high = row["ci"]["ndcg@10"]
        tuning = result["tuning"].get(name, {})
        lines.append(
            f"| {name} | "
            + " | ".join(f"{row[metric]:.4f}" for metric in NAMES)
            + f" | {low:.4f}-{high:.4f} | {tuning.get('tried', '')} "
            f"| {result['seconds'].get(name, '')} |"
        )
    for told, key in (("", "over_best_peer"), (", told the time", "over_best_peer_timed")):
        for metric, over in result.get(key, {}).items():
            if over is not None:
                low, high = over["ci"]
                lines.append(
                    f"\n{metric}{told}: {over['ratio']:.3f} × the best peer ({over['peer']}), "
                    f"difference {over['difference']:+.4f} [{low:+.4f}, {high:+.4f}]."
                )
    lines += _above(result) + _elsewhere(result)
    if "note" in result:
        lines.append(f"\n{result['note']}")
    if result["not_run"]:
        left = "; ".join(f"{name} ({why})" for name, why in result["not_run"].items())
        lines.append(f"\nNot run: {left}.")
    return "\n".join(lines) + "\n"


def _above(result: Mapping[str, Any]) -> list[str]:
    """Return a line on the peers that do better than Portrait, for each of what they are told."""
    ndcg = {name: row["ndcg@10"] for name, row in result["models"].items()}
    found = []
    for own, timed in (("portrait", False), ("portrait_timed", True)):
        better = [
            f"{name} ({ndcg[name]:.4f})"
            for name in sorted(result["seconds"], key=lambda name: -ndcg[name])
            if name.endswith("_timed") == timed and ndcg[name] > ndcg.get(own, 1.0)
        ]
        if better:
            found.append(f"\nAbove {own} ({ndcg[own]:.4f}) by NDCG@10: {', '.join(better)}.")
    return found


def _elsewhere(result: Mapping[str, Any]) -> list[str]:
    """Return lines on the models that ran on another machine than the first."""
    machines = dict[str, list[str]]()
    for name, where in result.get("machines", {}).items():
        if where != result["machine"]:
            machines.setdefault(where, []).append(name)
    return [f"\nOn {where}: {', '.join(names)}." for where, names in machines.items()]
