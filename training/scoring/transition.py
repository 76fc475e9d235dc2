"""The learned transition ``u_t = f(u_{t-1}, x_t)`` over bytes.

`LearnedTransition.replay` applies events to packed states, one each (`step`) or whole
histories. What it leaves is the same to the byte however the events were cut into calls
and whoever shared a batch (`state.recurrence`). Events that the model does not consume (see
`feature_repo.events.types.CONSUMED`) leave a state as it is.
"""

from collections.abc import Sequence

import numpy as np

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import EventRecord
from training.history.sequences import Histories, encode
from training.network.model_dir import Model
from training.scoring.learned_state import Layout, LearnedStates, cut_apart, lay_end_to_end, refusal
from training.state.recurrence import Events, move_states, weights_of

USERS_PER_PASS = 256


class LearnedTransition:
    """Applies events to learned states, each of which keeps a digest of the model's ``version``."""

    def __init__(self, model: Model) -> None:
        self.version = model.version
        self._vocabulary = model.vocabulary
        self._weights = weights_of(model.network.encoder)
        self._layout = Layout.of(model)
        self._shape = self._layout.shape
        self._advance([], encode([], self._vocabulary))  # compiled, or read, before it is needed

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
        # Those without an event to consume stay as they are, unless they have no state yet.
        lengths = encoded.lengths().tolist()
        moved = [i for i, n in enumerate(lengths) if n or before[i] is None]
        for begin in range(0, len(moved), USERS_PER_PASS):
            some = moved[begin : begin + USERS_PER_PASS]
            part = encoded if len(some) == len(lengths) else encoded.select(some)
            done = self._advance([before[i] for i in some], part)
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
        left_rows, right_rows = left.tables.read_rows(0), right.tables.read_rows(0)
        if left_rows.tobytes() != right_rows.tobytes() or not np.array_equal(
            left.tables.scalars, right.tables.scalars
        ):
            return float("inf")
        gap = np.abs(left.floats - right.floats) / np.maximum(1.0, np.abs(right.floats))
        return float(gap.max(initial=0.0))

    def _advance(self, before: Sequence[bytes | None], histories: Histories) -> list[bytes]:
        data, starts = lay_end_to_end(before)
        users, shape = len(before), self._shape
        out, ends = np.empty(users * shape.most_bytes, np.uint8), np.empty(users, np.int64)
        events = Events(
            histories.starts, histories.time_ms, histories.kind, histories.weight,
            histories.numeric, histories.lines, histories.item, histories.category,
        )  # fmt: skip
        user, fault = move_states(self._weights, shape, events, data, starts, out, ends)
        if fault:
            raise refusal(fault, before[user], self._layout)
        return cut_apart(out, ends)
