"""Scores from a learned state: what the recommender asks of a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.model_dir import Model
from training.network import Requests, make_requests
from training.pair import Pairs, make_pairs
from training.repeat import KNOWN, LAST_MS, SCALARS, Rows
from training.state import Parts, unpack

Floats = npt.NDArray[np.float32]


class Scorer:
    """Reads states made by the same model.

    Parameters
    ----------
    model
        As `training.model_dir.load` gives it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        encoder = model.network.encoder
        self._e = encoder.dim
        self._floats = (
            sum(kept * width for kept, width in encoder.rings) + 2 * encoder.hidden + encoder.dim
        )

    def scores(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Floats:
        """Return the score of every item of ``model.vocabulary.items``, shape (N,).

        Parameters
        ----------
        state
            None, or a state before its first event: the popularity.
        now_ms
            Time of the request, epoch milliseconds; None if it shall not matter.
        user_features
            One online row of the model's feature service, by feature name.

        Raises
        ------
        ModelMismatchError
            If another model made the state.
        """
        parts = self._read(state)
        if parts is None:
            return self.model.vocabulary.log_popularity
        with torch.inference_mode():
            u, pairs = self._vector(parts, now_ms, user_features)
            out: Floats = self.model.network.scores(u, pairs)[0].numpy()
        return out

    def user_vector(
        self,
        state: bytes | None,
        now_ms: int | None = None,
        user_features: Mapping[str, Any] | None = None,
    ) -> Floats:
        """Return the profile vector u, shape (D,); zeros before the first event."""
        parts = self._read(state)
        if parts is None:
            return np.zeros(self._e, np.float32)
        with torch.inference_mode():
            out: Floats = self._vector(parts, now_ms, user_features)[0][0].numpy()
        return out

    def item_embeddings(self) -> Floats:
        """Return one vector per item, shape (N, D), for similar items."""
        network = self.model.network
        if self.model.config.recipe == "stacked":
            return network.encoder.content.item.weight[1:].numpy()
        out: Floats = network.output.weight.numpy()
        return out

    def propensity(
        self,
        state: bytes | None,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None = None,
    ) -> float:
        """Return the chance of a purchase within 7 days of ``now_ms``; NaN without events."""
        parts = self._read(state)
        if parts is None:
            return float("nan")
        with torch.inference_mode():
            u, _ = self._vector(parts, now_ms, user_features, pairs=False)
            return float(torch.sigmoid(self.model.network.propensity(u))[0])

    def _read(self, state: bytes | None) -> Parts | None:
        if state is None:
            return None
        parts = unpack(state, self.model.version, self._floats)
        return parts if parts[0][KNOWN] > 0 else None

    def _vector(
        self,
        parts: Parts,
        now_ms: int | None,
        user_features: Mapping[str, Any] | None,
        *,
        pairs: bool = True,
    ) -> tuple[Tensor, Pairs | None]:
        scalars, floats, rows = parts
        table: npt.NDArray[np.float64] = scalars.reshape(1, len(SCALARS))
        timed = now_ms is not None
        now = np.array([table[0, LAST_MS] if now_ms is None else float(now_ms)], np.float64)
        requests: Requests = make_requests(
            table, now, np.array([timed]), self.model.user_features.row(user_features)
        )
        e = torch.from_numpy(floats[None, -self._e :].copy())
        u = self.model.network.vector(e, requests)
        if not pairs or self.model.config.recipe == "stacked":
            return u, None
        held = Rows(np.zeros(len(rows), np.int64), rows, table)
        return u, make_pairs(held, now, self.model.vocabulary.median_gap_days)
