"""The reranker beside a network: whether it pays, and its trees, by the validation period."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from training.evaluation.baselines import window
from training.evaluation.metrics import Doubles, bootstrap, ranking_metrics
from training.fit.selection import Asker, DenseAnswers
from training.history.prepared import Prepared
from training.history.sequences import Ints
from training.history.vocabulary import FULL_ITEMS, Vocabulary
from training.neighbours.channels import Channels
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.network import PortraitNetwork
from training.network.reranker import RankedMoment, Reranker, import_lightgbm, make_facts, shortlist
from training.scoring.as_of_now import AsOfNow
from training.state.candidate_facts import FACTS

Floats = npt.NDArray[np.float32]
FITTED_ON: Final = 4000
"""Most requests of each half of the period that trees are fitted on, or tried on."""
LEAST: Final = 500
"""Fewer requests with an answer are too few for trees."""
TREES: Final = 300
SETTINGS: Final = {
    "objective": "lambdarank", "verbosity": -1, "learning_rate": 0.03, "num_leaves": 31,
    "min_data_in_leaf": 200, "lambdarank_truncation_level": 20, "feature_fraction": 0.5,
    "bagging_fraction": 0.8, "bagging_freq": 1, "max_bin": 63, "lambda_l2": 10.0, "seed": 7,
    "num_threads": 1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip


def fit_reranker(
    network: PortraitNetwork, prepared: Prepared, memory: Channels | None
) -> tuple[Reranker | None, dict[str, float] | None]:
    """Fit trees to what the network, its memories and live popularity answer; keep them if it pays.

    It pays where trees fitted on the first half of the validation period raise NDCG@10 on the
    second, the 95 % interval of the gain above 0. Then they are fitted on both.

    Returns
    -------
    tuple
        The reranker, or None; and on the second half ``gain`` and ``gain_at_least``, and whether
        it is ``used`` (0 or 1); None where it cannot be had: of `stacked`, of more than
        `FULL_ITEMS` items, or with fewer than `LEAST` requests.
    """
    if network.live is None or network.items > FULL_ITEMS:
        return None, None
    histories = prepared.histories
    requests = window(histories, prepared.train_until_ms, prepared.until_ms)
    if len(requests.event) < 2 * LEAST:
        return None, None
    maker = ExampleMaker(prepared, network.config, TrainConfig(), memory)
    lengths = histories.lengths()[requests.user]
    asker = Asker(network, maker, requests, lengths, timed=True)
    vocabulary = prepared.vocabulary
    now = AsOfNow(network, histories, None)
    order = np.argsort(histories.time_ms[requests.event], kind="stable")
    first, second = np.array_split(order, 2)
    learned = _Learned.of(asker, now, vocabulary, first)
    if len(learned.scores) < LEAST:
        return None, None
    gains = _gains(asker, now, _fit([learned], vocabulary), second)
    gain = bootstrap(gains, requests.user[asker.sample(second, FITTED_ON)])
    told = {"gain": gain.mean, "gain_at_least": gain.low, "used": float(gain.low > 0)}
    if gain.low <= 0:
        return None, told
    return _fit([learned, _Learned.of(asker, now, vocabulary, second)], vocabulary), told


@dataclass(frozen=True)
class _Question:
    """One request: what is answered without trees, what they read, and what was bought."""

    scores: Floats
    logits: Floats
    moment: RankedMoment
    bought: Ints


def ask(
    asker: Asker, now: AsOfNow, rows: Ints, most: int = FITTED_ON
) -> Iterator[tuple[DenseAnswers, list[_Question]]]:
    """Yield the answers to a sample of a window's rows, as they are served without trees."""
    for found in asker.ask(rows, most):
        assert isinstance(found, DenseAnswers)
        assert found.tables is not None
        now_ms, targets = now.histories.time_ms[found.event], found.full.targets
        bought = np.split(targets.item.numpy(), np.cumsum(targets.sizes.numpy())[:-1])
        scores = found.scores(asker.network)
        moments = now.read_moments(scores, found.tables, now_ms)
        logits = found.full.base.numpy()
        yield (
            found,
            [
                _Question(of_all, logits[p], moment, bought[p])
                for p, (of_all, moment) in enumerate(moments)
            ],
        )


@dataclass(frozen=True)
class _Learned:
    """Shortlists that hold an answer: facts, scores before, what was bought, and sizes."""

    facts: list[Floats]
    scores: list[Floats]
    bought: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, asker: Asker, now: AsOfNow, vocabulary: Vocabulary, rows: Ints) -> "_Learned":
        """Ask a sample of some rows of the window."""
        made = cls([], [], [])
        for _, questions in ask(asker, now, rows):
            for each in questions:
                item = shortlist(each.scores)
                right = np.isin(item, each.bought)
                if not right.any():
                    continue
                made.bought.append(right)
                made.scores.append(each.scores[item])
                category, gaps = vocabulary.item_category, vocabulary.median_gap_days
                made.facts.append(
                    make_facts(item, each.scores, each.logits, each.moment, category, gaps)
                )
        return made


def _fit(parts: Sequence[_Learned], vocabulary: Vocabulary) -> Reranker:
    lightgbm = import_lightgbm()
    scores = [each for part in parts for each in part.scores]
    data = lightgbm.Dataset(
        np.concatenate([each for part in parts for each in part.facts]),
        np.concatenate([each for part in parts for each in part.bought]).astype(np.int8),
        group=[len(each) for each in scores], init_score=np.concatenate(scores).astype(np.float64),
        feature_name=list(FACTS),
    )  # fmt: skip
    trees = lightgbm.train(dict(SETTINGS), data, TREES)
    return Reranker(trees.model_to_string(), vocabulary)


def _gains(asker: Asker, now: AsOfNow, trial: Reranker, rows: Ints) -> Doubles:
    """Return what trees add to the NDCG@10 of each request, shape (P,)."""
    out = list[Doubles]()
    for found, questions in ask(asker, now, rows):
        before = [each.scores for each in questions]
        after = [trial.rerank(each.scores, each.logits, each.moment) for each in questions]
        both = [
            ranking_metrics(torch.from_numpy(np.stack(scores)), found.full.targets)[:, 0]
            for scores in (after, before)
        ]
        out.append(both[0] - both[1])
    return np.nan_to_num(np.concatenate(out))
