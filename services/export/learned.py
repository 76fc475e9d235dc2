"""Learned state of a user, described: its parts, what they mean, and their numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import iso
from feature_repo.online.live_row import LiveState
from services.export.schemas import LearnedDescription, RememberedItem, StatePart

MEANING: Final = (
    "What a neural network carries from one event of the user to the next. It foretells which "
    "items and categories come next and how likely a purchase is. Its numbers have no names: only "
    "the network that made them reads them. It follows from the events and the model alone, and "
    "goes with the profile when the user is erased."
)
_SCALARS: Final = "counts and times: events, the first, the last, gaps, sizes of orders"
_CARRIED: Final = "the last events, as the network's convolution still has to see them"
_HIDDEN: Final = "the network's short-term memory (h of its LSTM)"
_CELL: Final = "the network's long-term memory (c of its LSTM)"
_TABLE: Final = "items that the user had: when first and last, how often, older ones counted less"


def describe_learned(row: LiveState, model: Any) -> LearnedDescription | None:
    """Return what the row's learned state is; None if there is none.

    Parameters
    ----------
    model
        The model that made it, as `training.network.model_dir` loads it; None if it is not loaded:
        then the parts cannot be read.
    """
    if not row.learned:
        return None
    parts, vector, items = (None, None, None) if model is None else _read(row.learned, model)
    return {
        "model": row.model, "size_bytes": len(row.learned), "updated_at": iso(row.time_ms),
        "meaning": MEANING, "parts": parts, "vector": vector, "items": items,
    }  # fmt: skip


def _read(
    state: bytes, model: Any
) -> tuple[list[StatePart] | None, list[float] | None, list[RememberedItem] | None]:
    from training.scoring.learned_state import Layout, LearnedStates
    from training.state.item_table import COUNTS, SCALARS

    layout = Layout.of(model)
    states = LearnedStates(1, layout)
    try:
        states.load([state])
    except ModelMismatchError:
        return None, None, None
    rows = states.tables.read_rows(0)
    parts: list[StatePart] = [
        {"name": "scalars", "meaning": _SCALARS, "numbers": len(SCALARS)},
        {"name": "carried", "meaning": _CARRIED, "numbers": layout.carried},
        {"name": "h", "meaning": _HIDDEN, "numbers": layout.hidden},
        {"name": "c", "meaning": _CELL, "numbers": layout.hidden},
        {"name": "items", "meaning": _TABLE, "numbers": len(rows) * (len(COUNTS) + 2)},
    ]
    names, epoch = model.vocabulary.items, datetime(1970, 1, 1, tzinfo=UTC)
    items: list[RememberedItem] = [
        {
            "item_id": names[int(one["item"]) - 1],
            "first_day": (epoch + timedelta(days=int(one["first_day"]))).date().isoformat(),
            "last_at": iso(int(one["last_s"]) * 1000),
            "counts": dict(zip(COUNTS, map(float, one["counts"]), strict=True)),
        }
        for one in rows
    ]
    return parts, [float(each) for each in states.floats[0]], items
