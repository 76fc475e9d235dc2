"""Targeting on the page on accuracy: coupons, lapse and uplift."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from training.lab.targeting.score_metrics import NAMES

Part = Callable[[Mapping[str, Any], Path], str]
"""Takes a result and the folder of results; returns Markdown."""


def _part(result: Mapping[str, Any], folder: Path) -> str:
    del folder
    split = result["split"]
    head = (
        f"### {result['dataset']}\n{split['how']}; {split['test_requests']:,} rows of "
        f"{split['test_users']:,} users. Seeds {', '.join(map(str, result['seeds']))}. "
        f"{result['machine']}.\n"
    )
    parts = [head, _table(result)]
    for name, subset in result.get("subsets", {}).items():
        parts += [f"\n{name}:\n", _table(subset)]
    return "\n".join(parts)


def _table(result: Mapping[str, Any]) -> str:
    models = result["models"]
    """Return a line a model, and the own model less its peers by the first metric."""
    metrics = [name for name in (*NAMES, "qini") if name in next(iter(models.values()))]
    lines = [
        "| model | " + " | ".join(metrics) + f" | 95 % of {metrics[0]} |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for name, row in sorted(models.items(), key=lambda pair: -pair[1][metrics[0]]):
        low, high = row["ci"][metrics[0]]
        values = " | ".join(f"{row[metric]:.4f}" for metric in metrics)
        lines.append(f"| {name} | {values} | {low:.4f} to {high:.4f} |")
    lines.append("")
    told = result.get("over") or {
        result[over][metrics[0]]["peer"]: result[over][metrics[0]]
        for over in ("over_best_peer", "over_logistic")
    }
    for each in told.values():
        low, high = each["ci"]
        lines.append(
            f"{metrics[0]} less {each['peer']}: {each['difference']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}].\n"
        )
    return "\n".join(lines)


STUDIES: Final[Mapping[str, tuple[str, Part]]] = {
    "coupons": (
        """## Who redeems a coupon
`portrait compare coupons`: of the households that a campaign was sent to, who redeems any of its
coupons. AUC, average precision and lift are taken within each campaign and averaged by its
redeemers. Logistic regression and boosting read RFM, coupon history and product match, tuned on
folds of households; the model reads more (`docs/targeting.md`) and is chosen the same way.
""",
        _part,
    ),
    "lapse": (
        """## Who lapses
`portrait compare lapse`: who buys nothing within 28 days. Logistic regression and boosting read
orders, spend and gaps. `encoder_head` is the network's own probability of a lapse, as in profiles.
""",
        _part,
    ),
    "uplift": (
        """## Whom an e-mail moves
`portrait compare uplift --data hillstrom.parquet`: Qini, the area between the curve and random
order, in outcomes per user. The first table is of the women's e-mail and visits. `known effect`
has Hillstrom's users with an effect that was drawn, so that the Qini of the best possible order,
`oracle`, is known.
""",
        _part,
    ),
}
"""By study: what stands above its results, and what makes a result's part of the page."""
