"""Pictures of the behaviour report: each function takes one answer and returns SVG text.

Hidden figures are shown as hidden (grey), never as nought. Colours are those of `plots`.
"""

from typing import Any, Final

from services.runtime.plots import ACCENT, OURS, PEER, WEEKDAYS, new_figure, svg

HIDDEN: Final = "#e3e6ea"
_SHORT: Final = 34


def trends(answer: dict[str, Any]) -> str:
    """Draw each category's people by bucket, their intervals and its change points."""
    series = [each for each in answer["series"] if each["points"]]
    rows = max(1, -(-len(series) // 2))
    figure, axes = new_figure(9.5, 0.4 + 1.55 * rows, rows, 2, squeeze=False, sharex=True)
    for ax, each in zip(axes.flat, series, strict=False):
        points = each["points"]
        at = [n for n, point in enumerate(points) if point["users"] is not None]
        low = [points[n]["users_interval"][0] for n in at]
        high = [points[n]["users_interval"][1] for n in at]
        ax.plot(at, [points[n]["users"] for n in at], color=OURS, linewidth=1.3)
        ax.fill_between(at, low, high, color=OURS, alpha=0.2, linewidth=0)
        starts = [point["start"] for point in points]
        for change in each["change_points"] or []:
            ax.axvline(starts.index(change["at"]) - 0.5, color=ACCENT, linewidth=1)
        ax.set_title(each["category"] or "everything", fontsize=9, loc="left")
        ax.set_ylim(bottom=0)
        marks = list(range(0, len(starts), max(1, len(starts) // 5)))
        ax.set_xticks(marks, [starts[n] for n in marks], fontsize=7)
    for ax in list(axes.flat)[len(series) :]:
        ax.set_visible(False)
    return svg(figure)


def drift(answer: dict[str, Any]) -> str:
    """Draw how far profiles moved month by month, and what rose and fell."""
    figure, (left, right) = new_figure(9.5, 4.2, 1, 2, width_ratios=[1, 1.25])
    months = [each for each in answer["months"] if each["users"] is not None]
    at = range(len(months))
    left.errorbar(
        at, [each["mean"] for each in months], color=OURS, marker="o", capsize=3,
        yerr=_spread(months, "mean"), label="mean, 95 %",
    )  # fmt: skip
    if months:
        left.fill_between(at, [each["quartiles"][0] for each in months],
                          [each["quartiles"][2] for each in months], color=PEER, alpha=0.3,
                          linewidth=0, label="middle half of users")  # fmt: skip
        left.legend(frameon=False, fontsize=8)
    left.set_xticks(at, [each["start"][:7] for each in months], fontsize=7, rotation=45, ha="right")
    left.set_ylabel("share of interests moved in a month")
    left.set_ylim(bottom=0)
    shown = [*answer["rising"], *answer["falling"][::-1]][::-1]
    names = range(len(shown))
    right.barh(
        names, [100 * each["change"] for each in shown], error_kw={"lw": 1},
        color=[OURS if each["change"] > 0 else ACCENT for each in shown],
        xerr=[[100 * side for side in sides] for sides in _spread(shown, "change")],
    )  # fmt: skip
    right.set_yticks(names, [_short(each["category"]) for each in shown], fontsize=8)
    right.axvline(0, color="#52606d", linewidth=0.8)
    right.set_xlabel("change of mean share, percentage points")
    return svg(figure)


def retention(answer: dict[str, Any]) -> str:
    """Draw the share of each cohort that came back, by age."""
    cohorts = answer["cohorts"]
    ages = max((len(each["cells"]) for each in cohorts), default=1)
    figure, axes = new_figure(9.5, 1.2 + 0.34 * max(1, len(cohorts)))
    shares = [
        [
            None if age >= len(each["cells"]) else each["cells"][age]["share"]
            for age in range(ages)
        ]
        for each in cohorts
    ]  # fmt: skip
    there = [[age < len(each["cells"]) for age in range(ages)] for each in cohorts]
    _heat(figure, axes, shares, "share of the cohort", text="{:.0%}", of=there, top=1)
    axes.set_yticks(range(len(cohorts)), [_cohort(each) for each in cohorts], fontsize=8)
    axes.set_xticks(range(ages))
    axes.set_xlabel(f"{answer['grain']}s since the first {answer['type']}")
    return svg(figure)


def funnel(answer: dict[str, Any]) -> str:
    """Draw how many users reached each step, with the interval of the share of the first."""
    steps = answer["steps"]
    figure, axes = new_figure(7.5, 0.8 + 0.55 * len(steps))
    first = steps[0]["users"] or 0
    for number, step in enumerate(steps):
        if step["users"] is None:
            axes.text(0, number, "  hidden: fewer than 20 here or lost here", va="center",
                      color="#52606d")  # fmt: skip
            continue
        axes.barh(number, step["users"], color=OURS if number else PEER)
        label, rate = f"  {step['users']:,}", step["of_first"]
        if rate is not None:
            low, high = rate["interval"]
            spread = [[step["users"] - low * first], [high * first - step["users"]]]
            axes.errorbar(step["users"], number, xerr=spread, color="#1d2733", capsize=3, lw=1)
            label = f"    {step['users']:,}: {rate['share']:.1%} [{low:.1%}, {high:.1%}]"
            end = max(step["users"], high * first)
        else:
            end = step["users"]
        axes.text(end, number, label, va="center", fontsize=9)
    axes.set_yticks(range(len(steps)), [step["type"] for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * first or 1)
    axes.set_xlabel("users")
    return svg(figure)


def rfm(answer: dict[str, Any]) -> str:
    """Draw the grid, 5 best at top and right."""
    rows, columns = answer["rows"], answer["columns"]
    found = {(each[rows], each[columns]): each["users"] for each in answer["cells"]}
    figure, axes = new_figure(5.8, 4.2)
    grid = [[found[row, column] for column in range(1, 6)] for row in range(5, 0, -1)]
    _heat(figure, axes, grid, "buyers", text="{:,}")
    axes.set_yticks(range(5), range(5, 0, -1))
    axes.set_xticks(range(5), range(1, 6))
    axes.set_ylabel(f"{rows}, 5 best")
    axes.set_xlabel(f"{columns}, 5 best")
    return svg(figure)


def habits(answer: dict[str, Any]) -> str:
    """Draw events by weekday and hour."""
    found = {(each["weekday"], each["hour"]): each["events"] for each in answer["cells"]}
    figure, axes = new_figure(9.5, 2.9)
    grid = [[found[day, hour] for hour in range(24)] for day in range(7)]
    _heat(figure, axes, grid, "events")
    axes.set_yticks(range(7), WEEKDAYS)
    axes.set_xticks(range(0, 24, 2))
    axes.set_xlabel("hour of the day, where the user is")
    return svg(figure)


def affinities(answer: dict[str, Any]) -> str:
    """Draw the lift of each pair and its interval."""
    pairs = answer["pairs"][::-1]
    figure, axes = new_figure(9.5, 0.9 + 0.3 * max(1, len(pairs)))
    at = range(len(pairs))
    axes.errorbar(
        [each["lift"] for each in pairs], at, fmt="o", color=OURS, capsize=3,
        xerr=_spread(pairs, "lift"),
    )  # fmt: skip
    names = [f"{_short(each['a'])} + {_short(each['b'])}" for each in pairs]
    axes.set_yticks(at, names, fontsize=8)
    axes.axvline(1, color=PEER, linewidth=1)
    axes.set_xlim(left=0)
    axes.set_xlabel("lift: baskets with both, over what chance alone would give")
    return svg(figure)


def _spread(shown: list[dict[str, Any]], name: str) -> list[list[float]]:
    return [
        [each[name] - each["interval"][0] for each in shown],
        [each["interval"][1] - each[name] for each in shown],
    ]


def _short(category: str) -> str:
    """Return a category's last part, its first where there is room."""
    if len(category) <= _SHORT:
        return category
    last = category.rpartition("/")[2]
    return last if len(last) <= _SHORT else last[: _SHORT - 1] + "…"


def _cohort(each: dict[str, Any]) -> str:
    size = "hidden" if each["users"] is None else f"{each['users']:,}"
    return f"{each['start']} · {size}{' *' if each['began_before'] else ''}"


def _heat(
    figure: Any, axes: Any, grid: list[list[Any]], label: str, *, text: str | None = None,
    of: list[list[bool]] | None = None, top: float | None = None,
) -> None:  # fmt: skip
    """Draw a table of figures; where None, grey, unless ``of`` says that nothing belongs there."""
    import numpy as np
    from matplotlib.colors import ListedColormap

    values = np.array([[np.nan if v is None else v for v in row] for row in grid], dtype=float)
    values = values if values.size else np.full((1, 1), np.nan)
    belongs = np.ones(values.shape, dtype=bool) if not of else np.array(of, dtype=bool)
    masked = np.where(np.isnan(values) & belongs, 1.0, np.nan)
    axes.imshow(masked, aspect="auto", cmap=ListedColormap([HIDDEN]))
    image = axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=top)
    figure.colorbar(image, ax=axes, label=label)
    if text is None:
        return
    middle = 0.6 * (top or np.nanmax(np.nan_to_num(values)) or 1)
    for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
        value = values[row, column]
        shown = text.format(value if "%" in text else int(value))
        axes.text(column, row, shown, ha="center", va="center", fontsize=7.5,
                  color="white" if value > middle else "#1d2733")  # fmt: skip
