"""The soak's picture."""

from collections.abc import Mapping, Sequence

from services.runtime.plots import PALETTE, new_figure, svg


def soak(samples: Sequence[Mapping[str, float]]) -> str:
    """Draw what a long run used: memory, open files, lag and log, latencies.

    Parameters
    ----------
    samples
        Rows of `services.lab.bench.soak`: ``seconds`` and one value a series.
    """
    figure, grid = new_figure(9, 6, 2, 2)
    panels = (
        ("memory (PSS), MB", lambda name: name.startswith(("PSS ", "known ids"))),
        ("open files", lambda name: name.startswith("files ")),
        ("log entries, archive parts", lambda name: name in {"log entries", "archive parts"}),
        (
            "event to profile, ms; lag, s",
            lambda name: name.startswith("event ") or name == "lag, s",
        ),
    )
    names = list(dict.fromkeys(name for row in samples for name in row))
    for axes, (title, belongs) in zip(grid.flat, panels, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
        for name, colour in zip(filter(belongs, names), PALETTE, strict=False):
            rows = [row for row in samples if name in row]
            axes.plot(
                [row["seconds"] / 60 for row in rows], [row[name] for row in rows],
                color=colour, lw=1, label=name.removeprefix("PSS ").removesuffix(", MB"),
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        if axes.lines:
            axes.legend(frameon=False, fontsize=7)
    return svg(figure)
