"""The learned transition ``u_t = f(u_{t-1}, x_t)`` over bytes.

`LearnedTransition.replay` applies events to packed states, one each (`step`) or whole
histories. What it leaves is the same to the byte however the events were cut into calls
and whoever shared a batch: it computes in double precision and rounds to single after
every event (`training.encoder.precise`). Events that the model does not consume (see
`training.sequences.CONSUMED`) leave a state as it is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.errors import ModelMismatchError
from feature_repo.events import EventRecord
from training.batches import event_inputs
from training.encoder import WINDOW, EventInputs, precise, recur
from training.model_dir import Model
from training.repeat import KNOWN, LAST_MS
from training.sequences import Histories, encode, ranges
from training.state import Layout, LearnedStates

USERS_PER_PASS = 256


class LearnedTransition:
    """Applies events to learned states.

    Parameters
    ----------
    model
        As `training.model_dir.load` gives it.

    Attributes
    ----------
    version
        The model's version; a digest of it is kept in every state made.
    """

    def __init__(self, model: Model) -> None:
        self.version = model.version
        self._vocabulary = model.vocabulary
        self._encoder = precise(model.network.encoder)
        self._carried: int = self._encoder.carried
        self._hidden: int = self._encoder.hidden
        self._layout = Layout.of(model)

    def step(self, states: Sequence[bytes | None], events: Sequence[EventRecord]) -> list[bytes]:
        """Apply one event to each state, as one batch; see `replay`."""
        return self.replay([[event] for event in events], states)

    def replay(
        self,
        histories: Sequence[Sequence[EventRecord]],
        states: Sequence[bytes | None] | None = None,
    ) -> list[bytes]:
        """Apply whole histories.

        Parameters
        ----------
        histories
            Events of each user in fold order.
        states
            To begin from; None is the state before the first event.

        Raises
        ------
        ModelMismatchError
            If a state was made by another model: replay that user's events from the first.
        """
        before = [None] * len(histories) if states is None else states
        encoded = encode([("", list(h)) for h in histories], self._vocabulary)
        out = [b"" if state is None else state for state in before]
        # Users of similar length share a pass; those without an event to consume need none,
        # unless they have no state yet.
        lengths = encoded.lengths()
        moved = np.flatnonzero((lengths > 0) | np.array([s is None for s in before], np.bool_))
        moved = moved[np.argsort(lengths[moved], kind="stable")]
        for begin in range(0, len(moved), USERS_PER_PASS):
            some = moved[begin : begin + USERS_PER_PASS]
            done = self._advance([before[i] for i in some], encoded.select(some))
            for i, state in zip(some, done, strict=True):
                out[i] = state
        return out

    def difference(self, one: bytes, other: bytes) -> float:
        """Return how far two states are apart: the largest ``|a − b| / max(1, |b|)``.

        Infinite if one of them is not of this model, or they remember different things.
        """
        if one == other:
            return 0.0
        try:
            left, right = LearnedStates(1, self._layout), LearnedStates(1, self._layout)
            left.load([one])
            right.load([other])
        except ModelMismatchError:
            return float("inf")
        left_rows, right_rows = left.tables.taken(0), right.tables.taken(0)
        if left_rows.tobytes() != right_rows.tobytes() or not (
            np.array_equal(left.tables.scalars, right.tables.scalars)
            and np.array_equal(left.window, right.window)
        ):
            return float("inf")
        gap = np.abs(left.floats - right.floats) / np.maximum(1.0, np.abs(right.floats))
        return float(gap.max(initial=0.0))

    def _advance(self, before: Sequence[bytes | None], histories: Histories) -> list[bytes]:
        states = LearnedStates(len(before), self._layout)
        states.load(before)
        if len(histories.time_ms):
            scalars = states.tables.scalars
            known = scalars[:, KNOWN] > 0
            inputs = event_inputs(histories, np.where(known, scalars[:, LAST_MS], -1.0))
            with torch.inference_mode():
                self._recur(states, histories, inputs)
            slide(states.window, histories, inputs)
        return states.pack()

    def _recur(self, states: LearnedStates, histories: Histories, inputs: EventInputs) -> None:
        """Move h, c and the repeat tables through every event, users side by side."""
        carried, hidden = self._carried, self._hidden
        floats = torch.from_numpy(states.floats)
        gates, kept = self._encoder.drive(inputs, floats[:, :carried].double())
        floats[:, :carried] = kept.float()
        lengths, sizes_all = histories.lengths(), np.diff(histories.lines)
        order = np.argsort(-lengths, kind="stable")
        descending = -lengths[order]
        # Users stand longest first here, so that those still moving are the first rows.
        moving = floats[torch.from_numpy(order), carried:].double()
        h, c = moving[:, :hidden].contiguous(), moving[:, hidden:].contiguous()
        for t in range(int(lengths.max(initial=0))):
            count = int(np.searchsorted(descending, -t, side="left"))
            active = order[:count]
            event = histories.starts[active] + t
            sizes = sizes_all[event]
            line = ranges(histories.lines[event], sizes)
            item = histories.item[line]
            known = item > 0
            states.tables.apply(
                active, histories.time_ms[event], histories.weight[event], sizes,
                np.repeat(np.arange(count), sizes)[known], item[known],
            )  # fmt: skip
            after = recur(self._encoder.lstm, gates[torch.from_numpy(event)], h[:count], c[:count])
            h[:count], c[:count] = (part.float() for part in after)
        floats[torch.from_numpy(order), carried:] = torch.cat([h, c], dim=1).float()


def slide(window: npt.NDArray[np.uint16], histories: Histories, inputs: EventInputs) -> None:
    """Put the times of each user's events behind those in ``window``, which keeps the last 7."""
    codes = ((inputs.gap * 24 + inputs.hour) * 7 + inputs.weekday + 1).numpy().astype(np.uint16)
    for user, start in enumerate(histories.starts[:-1]):
        new = codes[max(start, histories.starts[user + 1] - WINDOW) : histories.starts[user + 1]]
        if len(new):
            window[user] = np.concatenate([window[user], new])[-WINDOW:]
