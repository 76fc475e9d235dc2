"""Learned sequence peers: SASRec, GRU4Rec and an HSTU-like encoder, all with full softmax.

All read the last `LENGTH` items a user had (baskets laid flat, in order), predict the next
item at every position, and share table, loss, optimiser and early stopping; what differs is the
encoder:

- `SasRec`: causal self-attention blocks (Kang and McAuley, ICDM 2018), trained with full cross
  entropy as Klenitskiy and Vasilev, RecSys 2023, found decisive.
- `Gru4Rec`: a GRU (Hidasi et al., ICLR 2016; cross entropy after Hidasi and Karatzoglou, CIKM
  2018).
- `Hstu`: pointwise gated attention without softmax (Zhai et al., ICML 2024), positions only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.evaluation.baselines import EvaluationWindow
from training.history.sequences import Ints, ranges
from training.lab.comparison.peer import Peer, Setting
from training.lab.comparison.protocol import measure, sample
from training.lab.comparison.shop import Shop
from training.network.devices import accelerator

LENGTH: Final = 100
BATCH: Final = 64
MAX_EPOCHS: Final = 60
PATIENCE: Final = 4
CHOOSE_ON: Final = 1500


@dataclass(frozen=True)
class Width:
    """Shape of a network and how it is fitted."""

    dim: int = 64
    blocks: int = 2
    dropout: float = 0.3
    learning_rate: float = 1e-3


class Attention(nn.Module):
    """SASRec's encoder: pre-norm blocks of one-head causal attention."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.position = nn.Embedding(LENGTH, width.dim)
        self.drop = nn.Dropout(width.dropout)
        self.blocks = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(
                    width.dim, 1, width.dim * 2, width.dropout, activation="gelu",
                    batch_first=True, norm_first=True,
                )
                for _ in range(width.blocks)
            ]
        )  # fmt: skip
        self.norm = nn.LayerNorm(width.dim)

    def forward(self, x_BTD: Tensor, sizes_B: Tensor) -> Tensor:
        """Return the state after each item, shape (B, T, D)."""
        length = x_BTD.shape[1]
        # Counted from the newest item, as where sequences are padded in front.
        positions = LENGTH - sizes_B[:, None] + torch.arange(length, device=x_BTD.device)
        x = self.drop(x_BTD + self.position(positions.clamp(max=LENGTH - 1)))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        out: Tensor = self.norm(x)
        return out


class Recurrent(nn.Module):
    """GRU4Rec's encoder."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.drop = nn.Dropout(width.dropout)
        self.gru = nn.GRU(width.dim, width.dim * 2, width.blocks - 1 or 1, batch_first=True)
        self.out = nn.Linear(width.dim * 2, width.dim)

    def forward(self, x_BTD: Tensor, sizes_B: Tensor) -> Tensor:
        """Return the state after each item, shape (B, T, D)."""
        del sizes_B
        out: Tensor = self.out(self.drop(self.gru(self.drop(x_BTD))[0]))
        return out


class Gated(nn.Module):
    """HSTU's encoder: ``Y = norm(SiLU(QKᵀ + r) V / T) ⊙ U``, relative positions in r."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        dim = width.dim
        self.drop = nn.Dropout(width.dropout)
        self.first = nn.ModuleList([nn.Linear(dim, 4 * dim) for _ in range(width.blocks)])
        self.second = nn.ModuleList([nn.Linear(dim, dim) for _ in range(width.blocks)])
        self.before = nn.ModuleList([nn.LayerNorm(dim) for _ in range(width.blocks)])
        self.inner = nn.ModuleList([nn.LayerNorm(dim) for _ in range(width.blocks)])
        self.relative = nn.Parameter(torch.zeros(width.blocks, LENGTH))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, sizes_B: Tensor) -> Tensor:
        """Return the state after each item, shape (B, T, D)."""
        del sizes_B
        x, length = self.drop(x_BTD), x_BTD.shape[1]
        position = torch.arange(length, device=x.device)
        back = position[:, None] - position[None, :]
        seen = (back >= 0).to(x.dtype)
        share = seen / (position[:, None] + 1.0)
        for n in range(len(self.first)):
            u, q, k, v = F.silu(self.first[n](self.before[n](x))).chunk(4, dim=-1)
            weight = q @ k.transpose(1, 2) + self.relative[n][back.clamp(min=0)]
            y = self.inner[n]((F.silu(weight) * share) @ v) * u
            x = x + self.second[n](self.drop(y))
        out: Tensor = self.norm(x)
        return out


class Sequence(nn.Module):
    """An encoder between an item table and the same table as output, with item biases."""

    def __init__(self, items: int, encoder: nn.Module, width: Width) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, width.dim, padding_idx=0)
        nn.init.normal_(self.item.weight, std=0.05)
        self.encoder = encoder
        self.bias = nn.Parameter(torch.zeros(items))

    def states(self, item_BT: Tensor, sizes_B: Tensor) -> Tensor:
        """Return the state after each item, shape (B, T, D); what follows the last is void."""
        out: Tensor = self.encoder(self.item(item_BT), sizes_B)
        return out

    def logits(self, state_PD: Tensor) -> Tensor:
        """Return the score of every item, shape (P, N)."""
        return state_PD @ self.item.weight[1:].T + self.bias


def flat(shop: Shop) -> tuple[Ints, Ints, Ints]:
    """Return the known items of positive events laid flat, each one's event, and user bounds."""
    histories = shop.histories
    sizes = np.diff(histories.lines)
    event = np.repeat(np.arange(len(sizes)), sizes)
    kept = (histories.item > 0) & (histories.weight[event] > 0)
    item, event = histories.item[kept], event[kept]
    return item, event, np.searchsorted(event, histories.starts)


class Fitting:
    """A network being fitted to the training period.

    Parameters
    ----------
    seed
        Of the batches' order; the network's weights are made by the caller.
    """

    def __init__(self, shop: Shop, network: Sequence, width: Width, seed: int) -> None:
        self.network = network
        self._item, event, bounds = flat(shop)
        trained = np.add.reduceat(
            np.append(shop.trained[event], False), np.minimum(bounds[:-1], len(event))
        ) * (np.diff(bounds) > 0)
        self._windows = _windows(bounds[:-1], bounds[:-1] + trained)
        self._generator = np.random.default_rng(seed)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=width.learning_rate, weight_decay=1e-3
        )

    def epoch(self) -> Iterator[int]:
        """Go through all windows once; yield how many items each step predicted."""
        network = self.network
        network.train()
        for users in _batches(self._windows, self._generator):
            some = self._windows[users]
            laid, sizes = _lay_out(self._item, some[:, 0], some[:, 1], accelerator())
            state = network.states(laid[:, :-1], sizes - 1)
            answers = laid[:, 1:]
            wanted = answers > 0
            loss = F.cross_entropy(network.logits(state[wanted]), answers[wanted] - 1)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            self._optimizer.step()
            yield int(wanted.sum())


class SequencePeer(Peer):
    """A network that stops by the validation period, asked with the last `LENGTH` items."""

    seeded = True
    encoder: ClassVar[Any]

    def settings(self) -> Iterable[Setting]:
        for dropout, rate, dim in product((0.3, 0.5, 0.2), (1e-3, 3e-3), (64, 128)):
            yield {"dim": dim, "blocks": 2, "dropout": dropout, "learning_rate": rate}

    def fit(self, setting: Setting) -> None:
        torch.manual_seed(self.seed)
        width = Width(**setting)
        network = Sequence(self.shop.items, type(self).encoder(width), width)
        for parameter in network.parameters():
            if parameter.dim() > 1 and parameter is not network.item.weight:
                nn.init.xavier_uniform_(parameter)
        self.network = network.to(accelerator())
        fitting = Fitting(self.shop, network, width, self.seed)
        best, kept, stale = -np.inf, network.state_dict(), 0
        for epoch in range(MAX_EPOCHS):
            for _ in fitting.epoch():
                pass
            found = measure(self.shop, sample(self.shop.validation, CHOOSE_ON), self.score)
            value = float(np.nanmean(found[:, 0]))
            self.tell(f"epoch {epoch + 1}, validation NDCG@10 {value:.4f}")
            if value > best:
                best, stale = value, 0
                kept = {k: v.clone() for k, v in network.state_dict().items()}
            else:
                stale += 1
                if stale >= PATIENCE:
                    break
        network.load_state_dict(kept)

    def score(self, wanted: EvaluationWindow) -> Tensor:
        item, event, bounds = self.once(flat, self.shop)
        network = self.network.eval()
        end = np.searchsorted(event, wanted.event)
        begin = np.maximum(bounds[:-1][wanted.user], end - LENGTH)
        out = network.bias.detach().cpu().expand(len(wanted.event), -1).clone()
        some = np.flatnonzero(end > begin)
        with torch.no_grad():
            for part in np.array_split(some, max(1, len(some) // 128)):
                if not len(part):
                    continue
                laid, sizes = _lay_out(item, begin[part], end[part], network.bias.device)
                last = network.states(laid, sizes)[torch.arange(len(part)), sizes - 1]
                out[torch.from_numpy(part)] = network.logits(last).cpu()
        return out


class SasRec(SequencePeer):
    """Self-attention."""

    name = "sasrec"
    encoder = Attention


class Gru4Rec(SequencePeer):
    """A GRU over the items."""

    name = "gru4rec"
    encoder = Recurrent


class Hstu(SequencePeer):
    """Gated pointwise attention."""

    name = "hstu"
    encoder = Gated


def _windows(begin: Ints, end: Ints) -> Ints:
    """Cut users' items into pieces of `LENGTH` + 1 that share one item, shape (W, 2)."""
    pieces = [
        (max(first, last - LENGTH - 1), last)
        for first, stop in zip(begin, end, strict=True)
        for last in range(int(stop), int(first) + 1, -LENGTH)
    ]
    return np.array(pieces, np.int64).reshape(-1, 2)


def _batches(windows: Ints, generator: np.random.Generator) -> Iterator[Ints]:
    sizes = windows[:, 1] - windows[:, 0]
    order = np.argsort(sizes * generator.uniform(0.9, 1.1, len(sizes)), kind="stable")
    groups = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    for at in generator.permutation(len(groups)):
        yield groups[at]


def _lay_out(item: Ints, begin: Ints, end: Ints, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return items of pieces, shape (B, T), zeros behind the last, and the pieces' sizes.

    All encoders look back only, so what stands behind changes nothing.
    """
    sizes = end - begin
    laid = np.zeros((len(begin), int(sizes.max())), np.int64)
    row = np.repeat(np.arange(len(begin)), sizes)
    line = ranges(begin, sizes)
    laid[row, line - begin[row]] = item[line]
    return torch.from_numpy(laid).to(device), torch.from_numpy(sizes).to(device)
