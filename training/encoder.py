"""Recipe ``fused``: a CNN over temporal features beside an LSTM over what was in the event.

For event t with items S, category, type and numeric features::

    s_t = LN(gap[t] + hour[t] + weekday[t])                                   temporal
    x_t = LN(Σ_{i∈S} (item[i] + category[i]) / √|S| + type[t] + W·numeric[t])  content
    c   = two gated residual causal convolutions (kernel 3, dilation 1 and 2) over s
    y   = P·LSTM(x)
    z_t = σ(W[y_t; c_t]) ⊙ [y_t; c_t];   e_t = W'·LN(z_t[:d] + z_t[d:])

`FusedEncoder.unroll` runs whole histories, `FusedEncoder.step` one event of each user, over
the same parameters; both take and return an `EncoderState` of constant size.

Shape legend: B users, T events, E events laid flat, D width, H LSTM units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.sequences import CONSUMED, GAP_BUCKETS, NUMERIC

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
    size, kind, gap, hour, weekday
        Per event, shape (E,): lines; type; gap bucket; UTC hour; weekday.
    numeric
        Shape (E, 5).
    place
        Index into the E events for each (user, time), E where there is none. Shape (B, T).
    lengths
        Events of each user, shape (B,), on the CPU.
    """

    item: Tensor
    category: Tensor
    first_line: Tensor
    size: Tensor
    kind: Tensor
    gap: Tensor
    hour: Tensor
    weekday: Tensor
    numeric: Tensor
    place: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class EncoderState:
    """What an encoder keeps of a user between events: the convolutions' last inputs, h and c."""

    rings: tuple[Tensor, ...]
    h: Tensor
    c: Tensor

    def flatten(self) -> Tensor:
        """Return one row of floats per user."""
        return torch.cat([*(ring.flatten(1) for ring in self.rings), self.h, self.c], dim=1)


def unflatten(flat: Tensor, rings: tuple[tuple[int, int], ...], hidden: int) -> EncoderState:
    """Read what `EncoderState.flatten` gave; ``rings`` lists (inputs kept, width)."""
    parts, at = list[Tensor](), 0
    for kept, width in rings:
        parts.append(flat[:, at : at + kept * width].reshape(-1, kept, width))
        at += kept * width
    return EncoderState(tuple(parts), flat[:, at : at + hidden], flat[:, at + hidden :])


def pad(flat_ED: Tensor, place_BT: Tensor) -> Tensor:
    """Lay flat events out as (B, T, D), zeros where there is none."""
    return torch.cat([flat_ED, flat_ED.new_zeros(1, flat_ED.shape[1])])[place_BT]


class LastInputs:
    """Reads the inputs a causal convolution must keep, at each user's own end."""

    @staticmethod
    def read(ring_BKD: Tensor, x_BTD: Tensor, lengths: Tensor) -> Tensor:
        """Return the last K of ring followed by x, up to each user's length."""
        kept = ring_BKD.shape[1]
        both = torch.cat([ring_BKD, x_BTD], dim=1)
        index = lengths.to(both.device)[:, None] + torch.arange(kept, device=both.device)
        return torch.gather(both, 1, index[:, :, None].expand(-1, -1, both.shape[2]))


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
        out: Tensor = self.norm(x + self.kind(inputs.kind) + self.numeric(inputs.numeric))
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


class GatedConv(nn.Module):
    """Causal ``x + gelu(a)·σ(g)`` with ``[a, g] = Conv1d(d → 2d, kernel 3, dilation)``."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, 2 * dim, KERNEL, dilation=dilation)
        self.kept = (KERNEL - 1) * dilation

    def forward(self, ring_BKD: Tensor, x_BTD: Tensor) -> Tensor:
        """Return the outputs at the T inputs, the ring standing before them."""
        both = torch.cat([ring_BKD, x_BTD], dim=1).transpose(1, 2)
        a, g = self.conv(both).transpose(1, 2).chunk(2, dim=-1)
        return x_BTD + F.gelu(a) * torch.sigmoid(g)


class FusedEncoder(nn.Module):
    """The ``fused`` recipe; see the module's docstring for the equations."""

    def __init__(self, items: int, categories: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.content = Content(items, categories, dim)
        self.temporal = Temporal(dim)
        self.convs = nn.ModuleList([GatedConv(dim, 1), GatedConv(dim, 2)])
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.project = nn.Linear(hidden, dim)
        self.gate = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    @property
    def rings(self) -> tuple[tuple[int, int], ...]:
        """Inputs kept per convolution, as (count, width)."""
        return ((2, self.dim), (4, self.dim))

    def initial(self, users: int) -> EncoderState:
        """Return the state before the first event: zeros."""
        like = self.out.weight
        return EncoderState(
            tuple(like.new_zeros(users, kept, width) for kept, width in self.rings),
            like.new_zeros(users, self.hidden),
            like.new_zeros(users, self.hidden),
        )

    def unroll(
        self, inputs: EventInputs, state: EncoderState, *, final: bool = False
    ) -> tuple[Tensor, EncoderState]:
        """Encode whole histories.

        Returns
        -------
        Tensor
            e at every event, shape (B, T, D); what stands at padding is meaningless.
        EncoderState
            After each user's last event if ``final``, else ``state`` as it came.
        """
        x = pad(self.drop(self.content(inputs)), inputs.place)
        s = pad(self.temporal(inputs.gap, inputs.hour, inputs.weekday), inputs.place)
        rings = list[Tensor]()
        for conv, ring in zip(self.convs, state.rings, strict=True):
            rings.append(LastInputs.read(ring, s, inputs.lengths))
            s = conv(ring, s)
        start = (state.h[None].contiguous(), state.c[None].contiguous())
        if not final:
            return self._fuse(self.lstm(x, start)[0], s), state
        y, (h, c) = run_packed(self.lstm, x, inputs.lengths, start)
        return self._fuse(y, s), EncoderState(tuple(rings), h, c)

    def step(self, inputs: EventInputs, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode one event of each user: `unroll` of length 1 without padding or packing.

        Returns
        -------
        Tensor
            e, shape (B, D).
        EncoderState
            After the event.
        """
        x = self.content(inputs)
        s = self.temporal(inputs.gap, inputs.hour, inputs.weekday)
        rings = list[Tensor]()
        for conv, ring in zip(self.convs, state.rings, strict=True):
            rings.append(torch.cat([ring[:, 1:], s[:, None]], dim=1))
            s = conv(ring, s[:, None])[:, 0]
        h, c = lstm_step(self.lstm, x, state.h, state.c)
        return self._fuse(h, s), EncoderState(tuple(rings), h, c)

    def _fuse(self, y: Tensor, c: Tensor) -> Tensor:
        both = torch.cat([self.project(self.drop(y)), c], dim=-1)
        z = torch.sigmoid(self.gate(both)) * both
        left, right = z.chunk(2, dim=-1)
        out: Tensor = self.out(self.norm(left + right))
        return out


def run_packed(
    lstm: nn.LSTM,
    x_BTD: Tensor,
    lengths: Tensor,
    start: tuple[Tensor, Tensor],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run an LSTM over ragged histories; the final h and c are each user's own."""
    packed = nn.utils.rnn.pack_padded_sequence(
        x_BTD, lengths, batch_first=True, enforce_sorted=False
    )
    y, (h, c) = lstm(packed, start)
    out, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x_BTD.shape[1])
    return out, (h[0], c[0])


def lstm_step(lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return h and c after one input of each user, by the LSTM's own equations."""
    w_x, w_h, b_x, b_h = lstm._flat_weights  # noqa: SLF001 - the order nn.LSTM documents
    assert w_x is not None
    assert w_h is not None
    gates = F.linear(x, w_x, b_x) + F.linear(h, w_h, b_h)
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c
