"""Studies on the page on accuracy: a table each, and a picture of how profiles follow."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Part = Callable[[Mapping[str, Any], Path], str]
"""Takes a result and the folder of results; returns Markdown."""


def _describe_fit(result: Mapping[str, Any]) -> str:
    fit, split = result["fit"], result["split"]
    return (
        f"### {result['dataset']}\n{split['how']}; {split['test_requests']:,} requests. Schedule "
        f"`{fit['schedule']}`, dropout {fit['dropout']}, seeds "
        f"{', '.join(map(str, fit['seeds']))}. {result['machine']}.\n\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _less(row: Mapping[str, Any]) -> str:
    low, high = row["less"]["ci"]
    return f"{row['less']['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _ablation(result: Mapping[str, Any], folder: Path) -> str:
    del folder
    rows = sorted(result["rows"].items(), key=lambda pair: -pair[1]["ndcg@10"])
    return _describe_fit(result) + _table(
        ["part", "NDCG@10", "by seed", "MRR", "less than whole"],
        [
            [
                name,
                f"{row['ndcg@10']:.4f}",
                ", ".join(f"{value:.4f}" for value in row["by_seed"]),
                f"{row['mrr']:.4f}",
                "" if name == "portrait" else _less(row),
            ]
            for name, row in rows
        ],
    )


def _freshness(result: Mapping[str, Any], folder: Path) -> str:
    del folder
    return _describe_fit(result) + _table(
        ["state", "NDCG@10", "MRR", "less than fresh", "requests without any state"],
        [
            [f"{age} old", f"{row['ndcg@10']:.4f}", f"{row['mrr']:.4f}", _less(row),
             f"{row['without_state']:.1%}"]
            for age, row in result["rows"].items()
        ],
    )  # fmt: skip


def _updating(result: Mapping[str, Any], folder: Path) -> str:
    name = f"{result['dataset']}.adaptation.svg"
    _draw(folder / name, {way: row["adaptation"]["curve"] for way, row in result["rows"].items()})
    table = _table(
        ["way", "next category NDCG@10", "next item NDCG@10", "jump of shares", "jump of items",
         "on the true interest", "events until followed", "µs an event", "chosen"],
        [
            [
                way,
                f"{row['next_category']:.4f}",
                f"{row['ndcg@10']:.4f}",
                f"{row['jump']['shares']:.3f}",
                f"{row['jump']['items']:.3f}",
                f"{row['adaptation']['right']:.1%}",
                f"{row['adaptation']['events_until_followed']:g}",
                f"{row['microseconds']:.0f}",
                ", ".join(f"{k} {v}" for k, v in row["setting"].items()),
            ]
            for way, row in result["rows"].items()
        ],
    )  # fmt: skip
    picture = (
        f"![Share of profiles on a new interest by events since the change]({folder.name}/{name})"
    )
    return f"{_describe_fit(result)}{table}\n{picture}\n"


def _category(result: Mapping[str, Any], folder: Path) -> str:
    del folder
    gap = result["difference"]["ndcg@10"]
    low, high = gap["ci"]
    table = _table(
        ["", "NDCG@10", "recall@10", "HR@10", "MRR"],
        [
            [name, *(f"{row[metric]:.4f}" for metric in ("ndcg@10", "recall@10", "hr@10", "mrr"))]
            for name, row in result["rows"].items()
        ],
    )
    return (
        f"{_describe_fit(result)}{result['moments']:,} moments of {result['users']:,} users, "
        f"{result['categories']:,} categories; shrink {result['shrink']:g}; by seed "
        f"{', '.join(f'{value:.4f}' for value in result['by_seed'])}.\n\n{table}\n"
        f"Model − counts: NDCG@10 {gap['mean']:+.4f} [{low:+.4f}, {high:+.4f}].\n"
    )


def _draw(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Without a fixed salt two drawings of the same numbers differ.
    with rc_context({"svg.hashsalt": "portrait"}):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        for way, curve in curves.items():
            axes.plot(range(1, len(curve) + 1), curve, marker="o", label=way)
        axes.set_xlabel("events of the new interest")
        axes.set_ylabel("share of profiles on it")
        axes.set_ylim(0, 1)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


STUDIES: Final[Mapping[str, tuple[str, Part]]] = {
    "category": (
        """## The next category
`portrait compare DATASET --study category`: which categories (two levels) a user buys from
within the next 14 days, asked on every Monday of the test period whose 14 days end in it; moments
with a purchase. Counts: distinct baskets by category over the whole history, halved every 112 days,
plus popularity times a number of baskets (tuned on the validation period). The model's head reads
the bounded learned state and the ten categories that the feature service lists.
""",
        _category,
    ),
    "ablation": (
        """## What each part is worth
`portrait compare DATASET --study ablation`: the same fit with one part left out or changed.
""",
        _ablation,
    ),
    "freshness": (
        """## What a late profile costs
`portrait compare DATASET --study freshness`: the same networks, asked with states that lack the
events of the last so much time. Who has no older event is shown popularity.
""",
        _freshness,
    ),
    "updating": (
        """## Three ways to update a profile
`portrait compare DATASET --study updating`. Rules: decayed counts. Clusters: mini-batch k-means
over the shares of categories that those counts give; the profile is the nearest cluster. Learned:
Portrait's model. Rules and clusters are tuned on the validation period. A jump is how much of a
profile one odd event moves (an item of a category never shown before), from 0 to 1: of the shares
of categories (total variation), and of the ten best items (part replaced). Interests that change
are planted in a synthetic shop (`training/lab/studies/adaptation.py`): how often the profile's
first
category is the true interest, and the median number of events until it is. Time is of one profile
on one core, in process, without store or network.
""",
        _updating,
    ),
}
"""By study: what stands above its results, and what makes a result's part of the page."""
