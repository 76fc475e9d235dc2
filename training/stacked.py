"""Recipe ``stacked``: Conv1D(64, 3, relu) → LSTM(100, tanh) → Dense(1, sigmoid).

The listing, made causal: the convolution sees an event and the two before it. It predicts a
purchase within 7 days of the event; its Dense layer stands in `training.network`. Trained
with binary cross-entropy and Adam at 1e-3.
"""

import torch
from torch import Tensor, nn

from training.encoder import (
    KERNEL,
    Content,
    EncoderState,
    EventInputs,
    LastInputs,
    Temporal,
    lstm_step,
    pad,
    run_packed,
)

FILTERS = 64
UNITS = 100


class StackedEncoder(nn.Module):
    """One convolution and one LSTM in series; same interface as `FusedEncoder`."""

    def __init__(self, items: int, categories: int, dim: int) -> None:
        super().__init__()
        self.dim = UNITS
        self.hidden = UNITS
        self.width = dim
        self.content = Content(items, categories, dim)
        self.temporal = Temporal(dim)
        self.conv = nn.Conv1d(dim, FILTERS, KERNEL)
        self.lstm = nn.LSTM(FILTERS, UNITS, batch_first=True)

    @property
    def rings(self) -> tuple[tuple[int, int], ...]:
        """Inputs kept by the convolution, as (count, width)."""
        return ((KERNEL - 1, self.width),)

    def initial(self, users: int) -> EncoderState:
        """Return the state before the first event: zeros."""
        like = self.conv.weight
        return EncoderState(
            (like.new_zeros(users, KERNEL - 1, self.width),),
            like.new_zeros(users, UNITS),
            like.new_zeros(users, UNITS),
        )

    def _inputs(self, inputs: EventInputs) -> Tensor:
        times = self.temporal(inputs.gap, inputs.hour, inputs.weekday)
        x: Tensor = self.content(inputs) + times
        return x

    def unroll(
        self, inputs: EventInputs, state: EncoderState, *, final: bool = False
    ) -> tuple[Tensor, EncoderState]:
        """Encode whole histories; see `FusedEncoder.unroll`."""
        x = pad(self._inputs(inputs), inputs.place)
        (ring,) = state.rings
        kept = LastInputs.read(ring, x, inputs.lengths)
        y = torch.relu(self.conv(torch.cat([ring, x], dim=1).transpose(1, 2))).transpose(1, 2)
        start = (state.h[None].contiguous(), state.c[None].contiguous())
        if not final:
            return self.lstm(y, start)[0], state
        out, (h, c) = run_packed(self.lstm, y, inputs.lengths, start)
        return out, EncoderState((kept,), h, c)

    def step(self, inputs: EventInputs, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode one event of each user; see `FusedEncoder.step`."""
        x = self._inputs(inputs)
        (ring,) = state.rings
        window = torch.cat([ring, x[:, None]], dim=1)
        y = torch.relu(self.conv(window.transpose(1, 2)))[:, :, 0]
        h, c = lstm_step(self.lstm, y, state.h, state.c)
        return h, EncoderState((window[:, 1:],), h, c)
