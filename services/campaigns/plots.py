"""Pictures of a campaign's report: the arms' difference, and the Qini curve."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.runtime.plots import ACCENT, OURS, PEER, new_figure, svg


def arms(report: Mapping[str, Any]) -> str:
    """Draw what each treated user brought more than the control, plain and with CUPED."""
    figure, both = new_figure(7.4, 2.6, 1, 2)
    for axes, name in zip(both, ("conversion", "revenue"), strict=True):
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{name} per user, treated − control", fontsize=9, loc="left")
        measure = report[name]
        if measure is None:
            axes.text(0.5, 0.5, "too few users", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        for row, (key, colour) in enumerate((("cuped", OURS), ("per_user", PEER))):
            one = measure[key]
            value = one["difference"]
            error = [[value - one["low"]], [one["high"] - value]]
            axes.errorbar(value, row, xerr=error, fmt="o", color=colour, capsize=4, lw=2)
            axes.annotate(
                f"{value:+.4g}", (value, row), (0, 7), textcoords="offset points", ha="center",
                fontsize=8,
            )  # fmt: skip
        axes.axvline(0, color=ACCENT, lw=1)
        axes.set_yticks([0, 1], ["CUPED", "plain"])
        axes.set_ylim(-0.6, 1.8)
        axes.tick_params(axis="y", length=0)
    users = f"{report['treated']['users']:,} treated, {report['control']['users']:,} control"
    figure.supxlabel(f"{report['claim']} · {users} · 95 % intervals", fontsize=8)
    return svg(figure)


def qini(share: Sequence[float], gain: Sequence[float]) -> str:
    """Draw a Qini curve (`training.evaluation.uplift_metrics.UpliftCurve`) beside random order."""
    figure, axes = new_figure(4.8, 3.4)
    axes.plot([0, 1], [0, gain[-1]], color=PEER, lw=1, label="random order")
    axes.plot(share, gain, color=OURS, label="by score")
    axes.fill_between(share, gain, [gain[-1] * each for each in share], color=OURS, alpha=0.12)
    axes.axhline(0, color=PEER, lw=0.5)
    axes.set_xlabel("share of users treated, highest scores first")
    axes.set_ylabel("conversions gained per user")
    axes.legend(frameon=False, fontsize="small")
    return svg(figure)
