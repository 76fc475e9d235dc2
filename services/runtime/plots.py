"""The pictures' common style: colours, empty axes, and a figure as SVG text.

Colours are fixed per meaning: ours blue, peers grey, so that a reader learns them once.
"""

import io
from typing import Any

OURS = "#1f5fa8"
PEER = "#9aa3ad"
ACCENT = "#d9822b"
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PALETTE = ("#1f5fa8", "#d9822b", "#3a8f5c", "#a23b72", "#6c5fb3", "#8a6d3b", "#4aa3b8", "#777777")


def new_figure(width: float = 6.4, height: float = 3.4, *grid: int, **how: Any) -> tuple[Any, Any]:
    """Return a figure of so many inches, and its axes as ``Figure.subplots`` gives them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(*grid, **how)
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Any) -> str:
    """Return a figure as SVG text, without the XML head."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
