"""Recipe ``stacked``: Conv1D(64, 3, relu) → LSTM(100, tanh) → Dense(1, sigmoid).

The listing, made causal: the convolution sees an event and the two before it. It predicts a
purchase within 7 days of the event; its Dense layer stands in `training.network.network`. Trained
with binary cross-entropy and Adam at 1e-3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.network.encoder import KERNEL, Content, EventInputs, Temporal, pad

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
    def carried(self) -> int:
        """Floats kept between events beside h and c: the convolution's last two inputs."""
        return (KERNEL - 1) * self.width

    def _inputs(self, inputs: EventInputs) -> Tensor:
        times = self.temporal(inputs.gap, inputs.hour, inputs.weekday)
        x: Tensor = self.content(inputs) + times
        return x

    def _convolved(self, x_BTD: Tensor) -> Tensor:
        return torch.relu(self.conv(x_BTD.transpose(1, 2))).transpose(1, 2)

    def unroll(self, inputs: EventInputs) -> Tensor:
        """Encode whole histories; see `FusedEncoder.unroll`."""
        x = pad(self._inputs(inputs), inputs.index)
        out: Tensor = self.lstm(self._convolved(F.pad(x, (0, 0, KERNEL - 1, 0))))[0]
        return out

    def read(self, carried_BK: Tensor, h_BH: Tensor) -> Tensor:
        """Return e after each user's last event, shape (B, 100): h itself."""
        return h_BH
