"""The report's pictures: each function takes plain numbers and returns SVG text."""

from collections.abc import Mapping, Sequence

from services.runtime.plots import ACCENT, OURS, PALETTE, PEER, WEEKDAYS, new_figure, svg


def learning_curve(history: Sequence[Mapping[str, float]]) -> str:
    """Draw training loss and validation NDCG@10 per epoch.

    Parameters
    ----------
    history
        One mapping an epoch with ``epoch``, ``loss`` and ``validation_ndcg@10``.
    """
    figure, axes = new_figure()
    epochs = [row["epoch"] + 1 for row in history]
    axes.plot(epochs, [row["loss"] for row in history], color=PEER, marker="o")
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss", color=PEER)
    axes.xaxis.get_major_locator().set_params(integer=True)
    twin = axes.twinx()
    twin.plot(epochs, [row["validation_ndcg@10"] for row in history], color=OURS, marker="o")
    twin.set_ylabel("validation NDCG@10", color=OURS)
    return svg(figure)


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Draw how often what was said came true, by what was said.

    Parameters
    ----------
    bins
        By outcome: ``said`` (mean probability), ``true`` (share) and ``moments`` of each bin.
    """
    figure, axes = new_figure(4.2, 3.4)
    axes.plot([0, 1], [0, 1], color=PEER, linewidth=1)
    for colour, (name, found) in zip((OURS, ACCENT), bins.items(), strict=False):
        axes.plot(
            [b["said"] for b in found], [b["true"] for b in found], color=colour, marker="o",
            label=name,
        )  # fmt: skip
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share that came true")
    if bins:
        axes.legend(frameon=False, fontsize="small")
    return svg(figure)


def model_against_baselines(
    models: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Sequence[float]]
) -> str:
    """Draw NDCG@10 of the model and its baselines with 95 % intervals by user.

    Parameters
    ----------
    models
        Name → metrics with ``ndcg@10``; the first is ours.
    intervals
        Name → (low, high) of ``ndcg@10``.
    """
    figure, axes = new_figure(height=2.6)
    names = list(models)[::-1]
    values = [models[name]["ndcg@10"] for name in names]
    low = [value - intervals[name][0] for name, value in zip(names, values, strict=True)]
    high = [intervals[name][1] - value for name, value in zip(names, values, strict=True)]
    colours = [OURS if name == "model" else PEER for name in names]
    axes.barh(names, values, xerr=[low, high], color=colours, error_kw={"lw": 1})
    for index, value in enumerate(values):
        axes.text(0.002, index, f"{value:.4f}", va="center", color="white", fontweight="bold")
    axes.set_xlabel("NDCG@10, full ranking")
    return svg(figure)


def interests_over_time(months: Sequence[str], shares: Mapping[str, Sequence[float]]) -> str:
    """Draw how one user's category interests moved.

    Parameters
    ----------
    months
        Labels of the points in time.
    shares
        Category → share of the interest at each point, 0 to 1.
    """
    figure, axes = new_figure(width=9, height=3.6)
    axes.stackplot(
        range(len(months)), *shares.values(), labels=list(shares), colors=PALETTE, alpha=0.9
    )
    axes.set_xticks(range(len(months)), months)
    axes.set_ylabel("share of long-term interest")
    axes.set_ylim(0, 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return svg(figure)


def habits(counts: Sequence[Sequence[float]]) -> str:
    """Draw purchases by weekday (7 rows, Monday first) and hour (24 columns)."""
    figure, axes = new_figure(width=9, height=2.8)
    image = axes.imshow(counts, aspect="auto", cmap="Blues")
    axes.set_yticks(range(7), WEEKDAYS)
    axes.set_xticks(range(0, 24, 2))
    axes.set_xlabel("hour of the day")
    figure.colorbar(image, ax=axes, label="baskets")
    return svg(figure)


def latencies(series_ms: Mapping[str, Sequence[float]]) -> str:
    """Draw the cumulative distribution of each series of request times."""
    figure, axes = new_figure()
    for (name, values), colour in zip(series_ms.items(), (OURS, ACCENT, PEER), strict=False):
        ordered = sorted(values)
        share = [(index + 1) / len(ordered) for index in range(len(ordered))]
        axes.plot(ordered, share, label=name, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, client side")
    axes.set_ylabel("share of requests")
    axes.legend(frameon=False)
    return svg(figure)


def throughput(seconds: Sequence[float], applied: Sequence[int]) -> str:
    """Draw events applied against time during the replay."""
    figure, axes = new_figure()
    axes.plot(seconds, applied, color=OURS)
    axes.fill_between(seconds, applied, color=OURS, alpha=0.15)
    axes.set_xlabel("seconds since the first batch")
    axes.set_ylabel("events applied")
    axes.set_ylim(bottom=0)
    return svg(figure)
