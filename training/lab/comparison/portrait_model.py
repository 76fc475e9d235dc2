"""Portrait's own model in a comparison: fitted, chosen and asked as its peers are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.fit.live import fit_live
from training.fit.loop import Fit
from training.fit.reranker import fit_reranker
from training.fit.selection import weigh
from training.fit.worker import Alone
from training.history.prepared import Prepared
from training.history.sequences import Histories, Ints, ranges
from training.lab.comparison.peer import Peer, Setting, Tell
from training.lab.comparison.shop import Shop
from training.neighbours.channels import Channels, SparseReading
from training.network.config import ModelConfig, TrainConfig
from training.network.devices import accelerator
from training.network.examples import BasketRequests, ExampleMaker
from training.network.network import PortraitNetwork
from training.network.reranker import Reranker
from training.scoring.as_of_now import AsOfNow
from training.scoring.retrieval import ItemArrays, Queries, scores


@dataclass(frozen=True)
class Answers:
    """A fitted network as a comparison asks it; a `training.lab.comparison.protocol.Score`.

    Attributes
    ----------
    shop, network, memory, reranker
        Data set, network, memory and trees (None without).
    timed
        Whether the network is told the time of each request.
    shuffled
        Seed of a control: what came before each request stands in random order (times keep
        their indices). None: as it was.
    age_ms
        Age of the state at each request: events younger than this are not applied yet.
    """

    shop: Shop
    network: PortraitNetwork
    memory: Channels | None
    reranker: Reranker | None = None
    timed: bool = False
    shuffled: int | None = None
    age_ms: int = 0

    def __call__(self, wanted: EvaluationWindow) -> Tensor:
        """Return the scores of requests, histories applied up to each, shape (P, N)."""
        if self.shuffled is not None:
            return self._score_shuffled(wanted, self.shuffled)
        last = self._last(wanted)
        some = np.flatnonzero(last >= self.shop.histories.starts[:-1][wanted.user])
        if len(some) == len(last):
            return self._scores(self._maker, wanted.user, last, wanted.event)
        # As in service, who has no state is shown what is popular.
        popular = torch.from_numpy(self.shop.vocabulary.log_popularity)
        out = popular.expand(len(last), -1).clone()
        if len(some):
            out[torch.from_numpy(some)] = self._scores(
                self._maker, wanted.user[some], last[some], wanted.event[some]
            )
        return out

    def without_state(self, wanted: EvaluationWindow) -> float:
        """Return the share of requests of who has no event as old as the state."""
        first = self.shop.histories.starts[:-1][wanted.user]
        return float((self._last(wanted) < first).mean())

    def _last(self, wanted: EvaluationWindow) -> Ints:
        """Return the last event in each request's state; before the user's first if none is."""
        if not self.age_ms:
            return wanted.event - 1
        histories = self.shop.histories
        until = histories.time_ms[wanted.event] - self.age_ms
        found = [
            first + int(np.searchsorted(histories.time_ms[first:end], moment, side="right")) - 1
            for first, end, moment in zip(
                histories.starts[:-1][wanted.user], wanted.event, until, strict=True
            )
        ]
        return np.array(found, np.int64)

    @cached_property
    def _now(self) -> AsOfNow:
        return AsOfNow(self.network, self.shop.histories, self.reranker)

    @cached_property
    def _maker(self) -> ExampleMaker:
        return self._maker_of(self.shop.whole)

    def _maker_of(self, prepared: Prepared) -> ExampleMaker:
        return ExampleMaker(prepared, self.network.config, TrainConfig(), self.memory)

    def _score_shuffled(self, wanted: EvaluationWindow, seed: int) -> Tensor:
        # One history for each request, since each has another past to shuffle.
        starts = self.shop.histories.starts[:-1][wanted.user]
        cut = self.shop.histories.select(wanted.user, wanted.event - starts + 1)
        mixed = _shuffle(cut, np.random.default_rng([seed, int(wanted.event[0])]))
        answers = mixed.starts[1:] - 1
        rows = np.arange(len(answers))
        maker = self._maker_of(self.shop.prepare_histories(mixed))
        return self._scores(maker, rows, answers - 1, answers)

    def _scores(self, maker: ExampleMaker, user: Ints, last: Ints, answer: Ints) -> Tensor:
        users = np.unique(user)
        lengths = maker.prepared.histories.lengths()[users]
        requests = BasketRequests(user, last, answer, np.full(len(answer), self.timed))
        network = self.network
        with torch.no_grad():
            example = maker.make(users, requests, np.zeros(0, np.int64), lengths)
            flat = network.unroll(example.events).flatten(0, 1)
            u = network.vector(flat[example.request_index], example.requests)
            if isinstance(example.memory, SparseReading):
                queries = Queries.of(
                    network, u, example.pairs, example.requests.statistics[:, 0], example.memory,
                    network.mixing,
                )  # fmt: skip
                found = scores(ItemArrays.of(network, self.memory), queries)
            else:
                found = network.scores(u, example.pairs, example.requests, example.memory)
                if self.timed and self._now.moves and example.tables is not None:
                    at_ms = maker.prepared.histories.time_ms[example.answers]
                    logits = network.logits(u, example.pairs)
                    found = self._now.move(found, logits, example.tables, at_ms)
        # The batch stands by time, then user: put it back into the order asked for.
        order = np.argsort(np.argsort(answer, kind="stable"), kind="stable")
        return found[np.argsort(example.answers, kind="stable")][order]


def _shuffle(histories: Histories, generator: np.random.Generator) -> Histories:
    """Permute what each user's events were, the last one's kept; times keep their places."""
    events = len(histories.time_ms)
    owner = np.repeat(np.arange(len(histories.users)), histories.lengths())
    key = generator.random(events)
    key[histories.starts[1:] - 1] = 1.0
    order = np.lexsort((key, owner))
    sizes = np.diff(histories.lines)[order]
    line = ranges(histories.lines[order], sizes)
    return replace(
        histories,
        kind=histories.kind[order], weight=histories.weight[order],
        target=histories.target[order], numeric=histories.numeric[order],
        lines=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        item=histories.item[line], category=histories.category[line],
    )  # fmt: skip


def fit(
    shop: Shop,
    model: ModelConfig,
    config: TrainConfig,
    tell: Tell,
    alter: Callable[[PortraitNetwork], None] | None = None,
) -> Answers:
    """Fit on the training period; epochs and the memories' weights by the validation period.

    Parameters
    ----------
    tell
        Called with a line after each epoch.
    alter
        Changes the fresh network before it is fitted.
    """

    def tell_epoch(epoch: Mapping[str, Any]) -> None:
        tell(f"epoch {epoch['epoch'] + 1}, validation NDCG@10 {epoch['validation_ndcg@10']:.4f}")

    prepared = shop.prepare()
    with TemporaryDirectory(prefix="portrait-compare-") as folder:
        prepared.write(Path(folder))
        run = Fit(Path(folder), model, config, Alone(accelerator(), tell_epoch), alter)
        run.run(resume=False)
    network = run.network.cpu()
    network.load_state_dict(run.best)
    network.eval()
    memory, _ = weigh(network, prepared)
    fit_live(network, prepared, memory)
    reranker, _ = fit_reranker(network, prepared, memory)
    return Answers(shop, network, memory, reranker)


@dataclass(frozen=True)
class Recipe:
    """A shape of the network, and how it is fitted."""

    model: ModelConfig
    config: TrainConfig


SCHEDULES: Final = {
    "short": Recipe(ModelConfig(), TrainConfig()),
    "long": Recipe(
        ModelConfig(),
        TrainConfig(epochs=40, patience=5, batch_users=8, positions=60, decay=0.985),
    ),
    "wide": Recipe(
        ModelConfig(dim=128, hidden=128),
        TrainConfig(epochs=200, patience=10, positions=100, decay=0.98),
    ),
}
"""The product's default; one for shops whose training converges slowly; and one of twice the
width, for many items in long or plain sequences: a GPU's work, or hours."""
_GRID: Final = (
    ("short", 0.4), ("long", 0.4), ("wide", 0.5),
    ("short", 0.5), ("long", 0.5), ("short", 0.3), ("wide", 0.3), ("long", 0.3),
)  # fmt: skip


class PortraitModel(Peer):
    """Portrait's model, the cheapest fit first."""

    name = "portrait"
    seeded = True

    def settings(self) -> Iterable[Setting]:
        return ({"schedule": name, "dropout": dropout} for name, dropout in _GRID)

    def fit(self, setting: Setting) -> None:
        recipe = SCHEDULES[setting["schedule"]]
        model = replace(recipe.model, dropout=setting["dropout"])
        self.answers = fit(self.shop, model, replace(recipe.config, seed=self.seed), self.tell)

    def score(self, wanted: EvaluationWindow) -> Tensor:
        return self.answers(wanted)
