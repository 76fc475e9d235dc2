"""The learned transition ``u_t = f(u_{t-1}, x_t)`` over bytes.

`LearnedTransition.step` is what the updater calls, `LearnedTransition.replay` what a rebuild
does; both go through the code that training runs. Events that the model does not consume
(see `training.sequences.CONSUMED`) leave a state as it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.errors import ModelMismatchError
from feature_repo.events import EventRecord
from training.batches import event_inputs, fold
from training.encoder import EncoderState, unflatten
from training.model_dir import Model
from training.repeat import KNOWN, LAST_MS, RepeatTables
from training.sequences import Histories, Ints, encode
from training.state import pack, unpack

USERS_PER_PASS = 64


class LearnedTransition:
    """Applies events to learned states.

    Parameters
    ----------
    model
        As `training.model_dir.load` gives it.

    Attributes
    ----------
    version
        The model's version, kept in every state made.
    """

    def __init__(self, model: Model) -> None:
        self.version = model.version
        self._model = model
        self._encoder = model.network.encoder
        self._carried = (
            sum(kept * width for kept, width in self._encoder.rings) + 2 * self._encoder.hidden
        )
        self.floats = self._carried + self._encoder.dim

    def step(self, states: Sequence[bytes | None], events: Sequence[EventRecord]) -> list[bytes]:
        """Apply one event to each state, as one batch.

        Parameters
        ----------
        states
            None is the state before the first event.
        events
            One per state, each of another user.

        Raises
        ------
        ModelMismatchError
            If a state was made by another model: `replay` that user's events instead.
        """
        return self._apply(states, [[event] for event in events], single=True)

    def replay(
        self,
        histories: Sequence[Sequence[EventRecord]],
        states: Sequence[bytes | None] | None = None,
    ) -> list[bytes]:
        """Apply whole histories; equal to repeated `step` within 1e-5.

        Parameters
        ----------
        histories
            Events of each user in fold order.
        states
            To begin from; None starts everyone anew.

        Raises
        ------
        ModelMismatchError
            If a state was made by another model.
        """
        before = [None] * len(histories) if states is None else states
        lengths = np.array([len(h) for h in histories], np.int64)
        out: list[bytes] = [b""] * len(histories)
        # Users of similar length share a pass, so that little is padded.
        order = np.argsort(lengths, kind="stable")
        for begin in range(0, len(order), USERS_PER_PASS):
            some = order[begin : begin + USERS_PER_PASS]
            done = self._apply(
                [before[i] for i in some], [histories[i] for i in some], single=False
            )
            for i, state in zip(some, done, strict=True):
                out[i] = state
        return out

    def difference(self, one: bytes, other: bytes) -> float:
        """Return how far two states are apart: the largest ``|a − b| / max(1, |b|)``.

        Infinite if one of them is not of this model, or they remember different items.
        """
        try:
            left, right = (unpack(state, self.version, self.floats) for state in (one, other))
        except ModelMismatchError:
            return float("inf")
        if len(left[2]) != len(right[2]):
            return float("inf")
        pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
            (left[0], right[0]), (left[1], right[1])
        ]  # fmt: skip
        pairs += [(left[2][name], right[2][name]) for name in left[2].dtype.names or ()]
        gaps = (
            np.abs(a.astype(np.float64) - b) / np.maximum(1.0, np.abs(b.astype(np.float64)))
            for a, b in pairs
        )
        return max(float(gap.max(initial=0.0)) for gap in gaps)

    def _apply(
        self,
        states: Sequence[bytes | None],
        histories: Sequence[Sequence[EventRecord]],
        *,
        single: bool,
    ) -> list[bytes]:
        encoded = encode([("", list(h)) for h in histories], self._model.vocabulary)
        moved = [int(i) for i in np.flatnonzero(encoded.lengths() > 0)]
        out = [self._initial() if state is None else state for state in states]
        if moved:
            chosen = [states[i] for i in moved]
            for i, state in zip(
                moved, self._advance(chosen, encoded.select(moved), single=single), strict=True
            ):
                out[i] = state
        return out

    def _advance(
        self, states: Sequence[bytes | None], histories: Histories, *, single: bool
    ) -> list[bytes]:
        tables, flat = self._open(states)
        known = tables.scalars[:, KNOWN] > 0
        inputs = event_inputs(histories, np.where(known, tables.scalars[:, LAST_MS], -1.0))
        nothing: Ints = np.zeros(0, np.int64)
        fold(histories, tables, nothing, nothing)
        before = self._state(flat)
        with torch.inference_mode():
            if single:
                e, after = self._encoder.step(inputs, before)
            else:
                steps, after = self._encoder.unroll(inputs, before, final=True)
                e = steps[torch.arange(len(steps)), inputs.lengths - 1]
            floats = torch.cat([after.flatten(), e], dim=1).numpy()
        return [
            pack(self.version, tables.scalars[i], floats[i], tables.taken(i))
            for i in range(len(states))
        ]

    def _open(self, states: Sequence[bytes | None]) -> tuple[RepeatTables, npt.NDArray[np.float32]]:
        model = self._model
        tables = RepeatTables(len(states), model.config.capacity, len(model.vocabulary.items))
        flat = np.zeros((len(states), self.floats), np.float32)
        for i, state in enumerate(states):
            if state is not None:
                scalars, flat[i], rows = unpack(state, self.version, self.floats)
                tables.load(i, rows, scalars)
        return tables, flat

    def _state(self, flat: npt.NDArray[np.float32]) -> EncoderState:
        carried = torch.from_numpy(flat[:, : self._carried].copy())
        return unflatten(carried, self._encoder.rings, self._encoder.hidden)

    def _initial(self) -> bytes:
        tables, flat = self._open([None])
        return pack(self.version, tables.scalars[0], flat[0], tables.taken(0))
