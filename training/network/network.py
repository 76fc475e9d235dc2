"""The whole network: an encoder and the heads that read its output.

A request asks at a moment about a user whose last event is known::

    u = LN(e + W·statistics + W'·features + [time known]·(gap to now + hour + weekday))
    score_i = u·O_i + b_i + [i in history]·pair_i(u)   next basket
    p_k = σ(α_k · MLP(u)_k + β_k)                       purchase within 7 days, lapse within 28

and the next categories (`training.network.next_category`).

``b`` starts at the centred log popularity. α and β are 1 and 0 in training; `calibration`
sets them afterwards. ``stacked`` has the sigmoid of one Dense layer only, purchase; its item scores
are the popularity.

Shape legend: P requests, N items, D width, S statistics, F features, R items in the history.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.history.prepared import OUTCOMES
from training.history.sequences import clock_features, gap_bucket
from training.history.vocabulary import DAY_MS, Vocabulary
from training.network.config import ModelConfig
from training.network.encoder import (
    EventInputs,
    FusedEncoder,
    FuseWeights,
    Temporal,
    TemporalWeights,
    read_one,
    times_of_one,
)
from training.network.live_popularity import LivePopularity
from training.network.next_category import CategoryHead
from training.network.one_user import Dense, Norm, affine, dense, norm, normalised
from training.network.repeat_head import PairHead, Pairs
from training.network.stacked import StackedEncoder
from training.network.stacking import Stacking
from training.state.item_table import (
    EVENTS,
    FIRST_MS,
    KNOWN,
    LAST_GAP_MS,
    LAST_MS,
    LAST_SIZE,
    SIZE_SUM,
    USED,
)
from training.state.recurrence import gap_of

STATISTICS: Final = 6


@dataclass(frozen=True)
class Requests:
    """Moments at which something is asked about a user.

    Attributes
    ----------
    statistics
        From the repeat table's scalars, see `statistics`. Shape (P, 6).
    features
        Standardised user features of the feature service. Shape (P, F).
    timed
        1.0 where the time of the request is known, else 0.0. Shape (P,).
    gap, hour, weekday
        From the last event to the request, and the request's clock. Shape (P,).
    """

    statistics: Tensor
    features: Tensor
    timed: Tensor
    gap: Tensor
    hour: Tensor
    weekday: Tensor


@njit(cache=True)
def statistics(scalars: Any) -> Any:
    """Return logs of events, mean gap, mean size, last size, last gap, items of `SCALARS`."""
    out = np.empty((len(scalars), STATISTICS), np.float32)
    for n in range(len(scalars)):
        row, events = scalars[n], max(scalars[n, EVENTS], 1.0)
        days = (row[LAST_MS] - row[FIRST_MS]) / DAY_MS
        out[n, 0] = math.log1p(row[EVENTS])
        out[n, 1] = math.log1p(days / max(events - 1.0, 1.0))
        out[n, 2] = math.log1p(row[SIZE_SUM] / events)
        out[n, 3] = math.log1p(row[LAST_SIZE])
        out[n, 4] = math.log1p(row[LAST_GAP_MS] / DAY_MS)
        out[n, 5] = math.log1p(row[USED])
    return out


def make_requests(
    scalars: npt.NDArray[np.float64],
    now_ms: npt.NDArray[np.float64],
    timed: npt.NDArray[np.bool_],
    features: npt.NDArray[np.float32],
) -> Requests:
    """Return the inputs of requests.

    Parameters
    ----------
    scalars
        Of the repeat table at the last event, shape (P, 8).
    now_ms
        Time of each request; read only where ``timed``.
    timed
        Whether the request's time is known.
    features
        Standardised user features, shape (P, F).
    """
    known = scalars[:, KNOWN] > 0
    gap = np.where(known, np.maximum(now_ms - scalars[:, LAST_MS], 0.0), -1.0)
    hour, weekday = clock_features(now_ms.astype(np.int64))
    return Requests(
        statistics=torch.from_numpy(statistics(scalars)),
        features=torch.from_numpy(features),
        timed=torch.from_numpy(timed.astype(np.float32)),
        gap=torch.from_numpy(gap_bucket(gap)),
        hour=torch.from_numpy(hour),
        weekday=torch.from_numpy(weekday),
    )


class PortraitNetwork(nn.Module):
    """Encoder and heads of either recipe, for so many items, categories and user features."""

    def __init__(self, config: ModelConfig, items: int, categories: int, features: int) -> None:
        super().__init__()
        self.config = config
        self.items = items
        dim = config.dim
        self.encoder: FusedEncoder | StackedEncoder
        self.bias = nn.Embedding(items, 1, _weight=torch.zeros(items, 1))
        self.mixing: Stacking | None = None
        self.live: LivePopularity | None = None
        self.next_category: CategoryHead | None = None
        self.pair: PairHead | None = None
        self._vectors: Tensor | None = None
        self.outcomes = tuple(OUTCOMES)[: 1 if config.recipe == "stacked" else None]
        self.calibration = nn.Parameter(torch.zeros(len(self.outcomes), 2), requires_grad=False)
        self.calibration[:, 0] = 1.0
        if config.recipe == "stacked":
            self.encoder = StackedEncoder(items, categories, dim)
            self.dense = nn.Linear(self.encoder.dim, 1)
            self.bias.requires_grad_(False)
            return
        self.encoder = FusedEncoder(items, categories, dim, config.hidden, config.dropout)
        self.statistics = nn.Linear(STATISTICS, dim)
        self.features = nn.Linear(features, dim, bias=False) if features else None
        self.now = Temporal(dim)
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(config.dropout)
        self.output = nn.Embedding(items, dim)
        nn.init.normal_(self.output.weight, std=0.02)
        self.pair = PairHead(items, dim) if config.repeat else None
        self.mixing = Stacking() if config.memory else None
        self.live = LivePopularity()
        self.head = nn.Sequential(nn.Linear(dim, 32), nn.GELU(), nn.Linear(32, len(self.outcomes)))
        if self.features is not None:
            nn.init.zeros_(self.features.weight)
        if categories > 1:
            self.next_category = CategoryHead(items, categories, dim)

    def start_from(self, vocabulary: Vocabulary) -> None:
        """Set the item biases to the vocabulary's popularity; take over the items' categories."""
        with torch.no_grad():
            self.biases.copy_(torch.from_numpy(vocabulary.log_popularity))
        if self.next_category is not None:
            self.next_category.know(vocabulary)

    @property
    def biases(self) -> Tensor:
        """B of every item, shape (N,)."""
        return self.bias.weight[:, 0]

    def item_tables(self) -> dict[str, nn.Embedding | nn.EmbeddingBag]:
        """Return the trained tables of one row an item, by their weight's name in the state."""
        tables: dict[str, nn.Embedding | nn.EmbeddingBag] = {
            "encoder.content.item.weight": self.encoder.content.item
        }
        if self.config.recipe != "stacked":
            tables |= {"bias.weight": self.bias, "output.weight": self.output}
        if self.pair is not None:
            tables["pair.item.weight"] = self.pair.item
            tables["pair.repurchase.weight"] = self.pair.repurchase
        return tables

    def unroll(self, inputs: EventInputs) -> Tensor:
        """Encode whole histories; see the encoder."""
        return self.encoder.unroll(inputs)

    def vector(self, e_PD: Tensor, requests: Requests) -> Tensor:
        """Return the profile vectors u at the requests, shape (P, D)."""
        if self.config.recipe == "stacked":
            return e_PD
        u = e_PD if self.config.encoder else torch.zeros_like(e_PD)
        u = u + self.statistics(requests.statistics)
        if self.features is not None:
            u = u + self.features(requests.features)
        now = self.now(requests.gap, requests.hour, requests.weekday)
        out: Tensor = self.drop(self.norm(u + requests.timed[:, None] * now))
        return out

    def serving(self) -> "VectorWeights":
        """Return what `vector_of_one` reads, of the recipe ``fused``."""
        assert isinstance(self.encoder, FusedEncoder)
        return VectorWeights(
            self.config.encoder, self.encoder.serving(), dense(self.statistics),
            dense(self.features, self.config.dim), self.now.serving(), norm(self.norm),
        )  # fmt: skip

    def without_memories(self) -> None:
        """Answer from the network alone from now on."""
        self.config = replace(self.config, memory=False)
        self.mixing = None

    def freeze(self) -> None:
        """Make ready for service: nothing is trained, and item vectors are added up once."""
        self.eval()
        self.requires_grad_(False)
        if self.config.recipe != "stacked":
            self._vectors = self.item_vectors()

    def item_vectors(self) -> Tensor:
        """Return what u is multiplied with, shape (N, D): input and output table added up."""
        if self._vectors is not None:
            return self._vectors
        return self.output.weight + self.encoder.content.item.weight[1:]

    def scores(
        self, u_PD: Tensor, pairs: Pairs | None, requests: Requests, memory_PMN: Tensor | None
    ) -> Tensor:
        """Return the score of every item, the memories mixed in, shape (P, N)."""
        logits = self.logits(u_PD, pairs)
        if self.mixing is None or memory_PMN is None:
            return logits
        out: Tensor = self.mixing(logits, memory_PMN, requests.statistics[:, 0])
        return out

    def logits(self, u_PD: Tensor, pairs: Pairs | None) -> Tensor:
        """Return the network's own logit of every item, shape (P, N)."""
        if self.config.recipe == "stacked":
            return self.biases.expand(len(u_PD), -1)
        logits: Tensor = torch.addmm(self.biases, u_PD, self.item_vectors().T)
        if self.pair is None or pairs is None or not len(pairs.owner):
            return logits
        bonus = self.pair(u_PD, pairs).to(logits.dtype)
        return logits.index_put((pairs.owner, pairs.item - 1), bonus, accumulate=True)

    def logits_of(self, items_C: Tensor, u_PD: Tensor, pairs: Pairs | None) -> Tensor:
        """Return the logits of some items (from 0, rising) only, shape (P, C)."""
        inputs = self.encoder.content.item
        own = F.embedding(items_C + 1, inputs.weight, sparse=inputs.sparse)
        vectors = self.output(items_C) + own
        logits: Tensor = torch.addmm(self.bias(items_C)[:, 0], u_PD, vectors.T)
        if self.pair is None or pairs is None:
            return logits
        index = torch.searchsorted(items_C, pairs.item - 1).clamp(max=len(items_C) - 1)
        among = items_C[index] == pairs.item - 1
        some = Pairs(pairs.owner[among], pairs.item[among], pairs.features[among])
        bonus = self.pair(u_PD, some).to(logits.dtype)
        return logits.index_put((some.owner, index[among]), bonus, accumulate=True)

    def outcome_logits(self, u_PD: Tensor) -> Tensor:
        """Return the logits of `outcomes`, calibrated where that was fitted, shape (P, K)."""
        head = self.dense if self.config.recipe == "stacked" else self.head
        out: Tensor = head(u_PD) * self.calibration[:, 0] + self.calibration[:, 1]
        return out

    def calibrated(self) -> tuple[bool, ...]:
        """Say for each of `outcomes` whether its probability was calibrated."""
        return tuple(bool((row != row.new_tensor([1.0, 0.0])).any()) for row in self.calibration)


class VectorWeights(NamedTuple):
    """Weights of `PortraitNetwork.vector`, and whether the encoder counts."""

    encoder: bool
    fuse: FuseWeights
    statistics: Dense
    features: Dense
    now: TemporalWeights
    norm: Norm


@njit(cache=True)
def vector_of_one(
    w: Any, carried: Any, h: Any, scalars: Any, features: Any, now_ms: float, timed: bool
) -> Any:
    """Return what `PortraitNetwork.vector` gives of one user, shape (D,).

    Parameters
    ----------
    carried, h, scalars
        Of the state: what the encoder carries, and the repeat table's scalars.
    features
        Standardised user features, shape (F,).
    now_ms, timed
        Time of the request, and whether it counts.
    """
    u = affine(w.statistics, statistics(scalars.reshape(1, -1))[0]) + affine(w.features, features)
    if w.encoder:
        u += read_one(w.fuse, carried, h)
    if timed:
        u += times_of_one(w.now, gap_of(scalars, now_ms), int(now_ms) // 3_600_000)
    return normalised(w.norm, u)
