"""The part of a score that needs the time of its request: live popularity, the reranker's order.

For batches along histories; one user in service is `scoring.scorer`. Not for more than
`history.vocabulary.FULL_ITEMS` items.

Shape legend: P requests, N items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.history.sequences import Histories, Ints
from training.history.vocabulary import FULL_ITEMS
from training.neighbours.live_counts import LiveCounts
from training.network.network import PortraitNetwork
from training.network.reranker import RankedMoment, Reranker
from training.state.item_table import Rows

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AsOfNow:
    """Moves scores to the time of their requests.

    Attributes
    ----------
    histories
        Of all users: what sells is counted in them.
    reranker
        Trees, None without.
    """

    network: PortraitNetwork
    histories: Histories
    reranker: Reranker | None

    @property
    def moves(self) -> bool:
        """Whether anything of a score needs the time."""
        live = self.network.live
        if live is None or self.network.items > FULL_ITEMS:
            return False
        return live.used or self.reranker is not None

    @cached_property
    def _counts(self) -> LiveCounts:
        return LiveCounts.of(self.histories, self.network.items)

    def move(self, scores_PN: Tensor, logits_PN: Tensor, tables: Rows, now_ms: Ints) -> Tensor:
        """Return the scores as of some moments, shape (P, N).

        Parameters
        ----------
        scores_PN, logits_PN
            Without the time: scores, and the network's own logits.
        tables
            Repeat tables at the requests.
        now_ms
            Time of each request, shape (P,).
        """
        out, reranker = list[Tensor](), self.reranker
        logits = logits_PN.float().cpu().numpy()
        for p, (scores, moment) in enumerate(self.read_moments(scores_PN, tables, now_ms)):
            moved = scores if reranker is None else reranker.rerank(scores, logits[p], moment)
            out.append(torch.from_numpy(moved))
        return torch.stack(out) if out else scores_PN

    def read_moments(
        self, scores_PN: Tensor, tables: Rows, now_ms: Ints
    ) -> Iterator[tuple[Floats, RankedMoment]]:
        """Yield each request's scores with live popularity, shape (N,), and what trees read."""
        live = self.network.live
        assert live is not None
        counts = self._counts.at(now_ms)
        logs = live.logs(counts) if live.users.all() else None
        added = live.added(counts)
        for p, scores in enumerate(scores_PN.float().cpu().numpy()):
            sells = None if logs is None else logs[p]
            yield scores + added[p], RankedMoment(*tables.of(p), float(now_ms[p]), sells)
