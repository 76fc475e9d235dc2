"""Recipe ``fused``: a CNN over what was in the last events and when, an LSTM over what it finds.

For event t with items S, category, type and numeric features::

    x_t = LN(Σ_{i∈S} (item[i] + category[i]) / √|S| + type[t] + W·numeric[t])   content
          + LN(gap[t] + hour[t] + weekday[t])                                   time
    c_t = x_t + gelu(a_t) ⊙ σ(g_t),   [a; g] = Conv1d(x)   causal, kernel 3
    y   = P·LSTM(c)
    z_t = σ(W[y_t; c_t]) ⊙ [y_t; c_t];   e_t = W'·LN(z_t[:d] + z_t[d:])

What an event was reaches e by two ways: through the LSTM, and directly by c. `unroll` runs
whole histories, for training; event by event `training.state.recurrence` does the same, and `read`
makes e of what it keeps. All over the same parameters.

Shape legend: B users, T events, E events laid flat, D width, H LSTM units.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from feature_repo.events.types import CONSUMED
from training.history.sequences import GAP_BUCKETS, NUMERIC
from training.network.one_user import (
    Dense,
    Floats,
    Norm,
    affine,
    array,
    dense,
    norm,
    normalised,
    sigmoid,
)

KERNEL = 3


@dataclass(frozen=True)
class EventInputs:
    """Events of a batch laid flat, and where each stands.

    Attributes
    ----------
    item, category
        Vocabulary rows per line, shape (F,).
    first_line
        First line of each event, shape (E,).
    size, event_type, gap, hour, weekday
        Per event, shape (E,): lines; type; gap bucket; UTC hour; weekday.
    numeric
        Shape (E, 5).
    index
        Index into the E events for each (user, time), E where there is none. Shape (B, T).
    lengths
        Events of each user, shape (B,), on the CPU.
    """

    item: Tensor
    category: Tensor
    first_line: Tensor
    size: Tensor
    event_type: Tensor
    gap: Tensor
    hour: Tensor
    weekday: Tensor
    numeric: Tensor
    index: Tensor
    lengths: Tensor


def pad(flat_ED: Tensor, index_BT: Tensor) -> Tensor:
    """Lay flat events out as (B, T, D), zeros where there is none."""
    return torch.cat([flat_ED, flat_ED.new_zeros(1, flat_ED.shape[1])])[index_BT]


class Content(nn.Module):
    """Sum of what was in an event: items, categories, type and numeric features."""

    def __init__(self, items: int, categories: int, dim: int) -> None:
        super().__init__()
        self.item = nn.EmbeddingBag(items + 1, dim, mode="sum")
        self.category = nn.EmbeddingBag(categories + 1, dim, mode="sum")
        self.kind = nn.Embedding(len(CONSUMED), dim)
        self.numeric = nn.Linear(len(NUMERIC), dim)
        self.norm = nn.LayerNorm(dim)
        for table in (self.item, self.category, self.kind):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, inputs: EventInputs) -> Tensor:
        """Return x, shape (E, D)."""
        bags = self.item(inputs.item, inputs.first_line)
        bags = bags + self.category(inputs.category, inputs.first_line)
        x = bags / inputs.size.clamp(min=1).sqrt()[:, None]
        out: Tensor = self.norm(x + self.kind(inputs.event_type) + self.numeric(inputs.numeric))
        return out


class Temporal(nn.Module):
    """Sum of an event's time gap, hour and weekday."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gap = nn.Embedding(GAP_BUCKETS, dim)
        self.hour = nn.Embedding(24, dim)
        self.weekday = nn.Embedding(7, dim)
        self.norm = nn.LayerNorm(dim)
        for table in (self.gap, self.hour, self.weekday):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, gap: Tensor, hour: Tensor, weekday: Tensor) -> Tensor:
        """Return s, shape (E, D)."""
        out: Tensor = self.norm(self.gap(gap) + self.hour(hour) + self.weekday(weekday))
        return out

    def serving(self) -> "TemporalWeights":
        """Return what `times_of_one` reads."""
        gap, hour, weekday = (array(table.weight) for table in (self.gap, self.hour, self.weekday))
        return TemporalWeights(gap, hour, weekday, norm(self.norm))


class TemporalWeights(NamedTuple):
    """Weights of `Temporal`."""

    gap: Floats
    hour: Floats
    weekday: Floats
    norm: Norm


@njit
def times_of_one(w: Any, gap: int, hours: int) -> Any:
    """Return what `Temporal` gives of one gap bucket and moment, in hours since 1970."""
    summed = w.gap[gap] + w.hour[hours % 24] + w.weekday[(hours // 24 + 3) % 7]
    return normalised(w.norm, summed)


class GatedConv(nn.Module):
    """Causal ``x + gelu(a)·σ(g)`` with ``[a, g] = Conv1d(d → 2d, kernel 3)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, 2 * dim, KERNEL)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the outputs at the T inputs; zeros stand before the first."""
        # One matrix product over the taps laid side by side: the same sums as `self.conv`, in
        # which a training step costs a tenth less on a CPU.
        length = x_BTD.shape[1]
        padded = F.pad(x_BTD, (0, 0, KERNEL - 1, 0))
        taps = torch.cat([padded[:, k : k + length] for k in range(KERNEL)], dim=-1)
        weight = self.conv.weight.permute(0, 2, 1).flatten(1)
        a, g = F.linear(taps, weight, self.conv.bias).chunk(2, dim=-1)
        return x_BTD + F.gelu(a) * torch.sigmoid(g)


class FusedEncoder(nn.Module):
    """The ``fused`` recipe; see the module's docstring for the equations."""

    def __init__(self, items: int, categories: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.content = Content(items, categories, dim)
        self.temporal = Temporal(dim)
        self.convolve = GatedConv(dim)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.project = nn.Linear(hidden, dim)
        self.gate = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    @property
    def carried(self) -> int:
        """Floats that the recurrence keeps between events beside h and c: two x, and the last c."""
        return KERNEL * self.dim

    def unroll(self, inputs: EventInputs) -> Tensor:
        """Encode whole histories from their first event.

        Returns
        -------
        Tensor
            e at every event, shape (B, T, D); what stands at padding is meaningless.
        """
        times = self.temporal(inputs.gap, inputs.hour, inputs.weekday)
        c = self.convolve(pad(self.drop(self.content(inputs) + times), inputs.index))
        return self._fuse(self.lstm(c)[0], c)

    def read(self, carried_BK: Tensor, h_BH: Tensor) -> Tensor:
        """Return e after each user's last event, shape (B, D)."""
        return self._fuse(h_BH, carried_BK[:, -self.dim :])

    def serving(self) -> "FuseWeights":
        """Return what `read_one` reads."""
        return FuseWeights(
            dense(self.project), dense(self.gate), norm(self.norm), dense(self.out)
        )  # fmt: skip

    def _fuse(self, y: Tensor, c: Tensor) -> Tensor:
        both = torch.cat([self.project(self.drop(y)), c], dim=-1)
        z = torch.sigmoid(self.gate(both)) * both
        left, right = z.chunk(2, dim=-1)
        out: Tensor = self.out(self.norm(left + right))
        return out


class FuseWeights(NamedTuple):
    """Weights of `FusedEncoder.read`."""

    project: Dense
    gate: Dense
    norm: Norm
    out: Dense


@njit
def read_one(w: Any, carried: Any, h: Any) -> Any:
    """Return what `FusedEncoder.read` gives of one user."""
    dim = len(w.norm.bias)
    both = np.concatenate((affine(w.project, h), carried[len(carried) - dim :]))
    z = sigmoid(affine(w.gate, both)) * both
    return affine(w.out, normalised(w.norm, z[:dim] + z[dim:]))
