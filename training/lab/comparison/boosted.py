"""Boosted trees over hand-made facts (LightGBM's LambdaRank): what a practitioner would pick.

Two stages. A few quick scores choose some hundred candidates for each request; trees that read the
facts of `facts` order them; the rest stand below, in the order of the quick scores.

`Gbdt` knows the time of a user's last event, as its peers do; `TimedGbdt` that of the request.
Belongs here: candidates, fitting and asking the trees. Not here: what they read (`facts`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.history.sequences import Ints
from training.lab.comparison.facts import FOLDS, Facts, Floats
from training.lab.comparison.histories import baskets, training_requests
from training.lab.comparison.peer import Peer, Setting
from training.lab.comparison.protocol import sample
from training.lab.comparison.shop import Shop

CHOOSE_ON: Final = 1500
"""Validation requests by which the number of trees is chosen."""
CELLS: Final = 1_000_000
"""Pairs of request and item that the quick scores are held for at a time."""
TREES: Final = 1500
PATIENCE: Final = 60
"""Trees without a better validation NDCG@10 after which no more are fitted."""


class Gbdt(Peer):
    """LambdaRank over facts as of the user's last event."""

    name = "gbdt"
    seeded = True
    timed: ClassVar = False
    grid: ClassVar = {
        "leaves": (31, 127), "learning_rate": (0.05, 0.02), "requests": (6_000, 20_000),
    }  # fmt: skip

    def fit(self, setting: Setting) -> None:
        self._facts = self.once(Facts, self.shop, self.timed)
        fitted, chosen = self.once(_examples, self.shop, self._facts, setting["requests"])

        def tell(state: Any) -> None:
            if state.iteration % 50 == 0:
                ndcg = state.evaluation_result_list[0][2]
                self.tell(f"{state.iteration} trees, NDCG@10 of validation's candidates {ndcg:.4f}")

        self._trees = lgb.train(
            {
                "objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "verbosity": -1,
                "learning_rate": setting["learning_rate"], "num_leaves": setting["leaves"],
                "min_data_in_leaf": 100, "lambdarank_truncation_level": 20,
                "feature_fraction": 0.6, "bagging_fraction": 0.8, "bagging_freq": 1,
                "max_bin": 127, "lambda_l2": 1.0, "seed": self.seed, "deterministic": True,
                "force_row_wise": True, "num_threads": torch.get_num_threads(),
            },
            fitted.dataset(), TREES, valid_sets=[chosen.dataset()],
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False), tell],
        )  # fmt: skip

    def score(self, wanted: EvaluationWindow) -> Tensor:
        out = np.empty((len(wanted.event), self.shop.items), np.float32)
        for part, found in _candidates(self._facts, wanted, fold=None):
            value = self._trees.predict(found.facts, num_threads=torch.get_num_threads())
            least = np.full(len(found.quick), np.inf)
            np.minimum.at(least, found.request, value)
            # What is no candidate stands below all that are.
            below = least - 1.0 - found.quick.max(axis=1)
            out[part] = found.quick + below[:, None]
            out[part][found.request, found.item] = value
        return torch.from_numpy(out)


class TimedGbdt(Gbdt):
    """The same, told the time of each request."""

    name = "gbdt_timed"
    timed: ClassVar = True


@dataclass(frozen=True)
class Shortlist:
    """Candidates of some requests, request after request.

    Attributes
    ----------
    request, item
        Rows, shape (R,); items from 0.
    facts
        Shape (R, facts).
    quick
        Scores by which the rest is ordered. Shape (P, N).
    """

    request: Ints
    item: Ints
    facts: Floats
    quick: Floats


@dataclass(frozen=True)
class Examples:
    """Facts of candidates, which of them were in the basket, and candidates of each request."""

    facts: Floats
    answers: npt.NDArray[np.bool_]
    sizes: Ints

    def dataset(self) -> lgb.Dataset:
        """Return it as LightGBM reads it."""
        return lgb.Dataset(
            self.facts, self.answers.astype(np.int8), group=self.sizes, free_raw_data=False
        )


def _candidates(
    facts: Facts, wanted: EvaluationWindow, fold: int | None
) -> Iterator[tuple[slice, Shortlist]]:
    """Yield requests and their candidates, a few requests at a time."""
    shop = facts.shop
    step = max(1, CELLS // shop.items)
    for begin in range(0, len(wanted.event), step):
        part = slice(begin, begin + step)
        some = EvaluationWindow(wanted.event[part], wanted.user[part])
        known = facts.before(some, fold)
        chosen = np.zeros((len(some.event), shop.items), np.bool_)
        barred = shop.had(some) if shop.masked else None
        for quick in known.sources:
            if barred is not None:
                quick[barred] = -np.inf
            most = min(facts.chosen, shop.items)
            best = np.argpartition(quick, shop.items - most, axis=1)[:, -most:]
            np.put_along_axis(chosen, best, values=True, axis=1)
        if barred is not None:
            chosen[barred] = False
            known.sources[0][barred] = 0.0
        request, item = np.nonzero(chosen)
        yield part, Shortlist(request, item, known.of(request, item), known.sources[0])


def _examples(shop: Shop, facts: Facts, most: int) -> tuple[Examples, Examples]:
    """Return examples to fit and to stop by: of the training and of the validation period.

    Those of training are an even sample of ``most`` requests of its later half, or, if that is
    too few, of the latest.
    """
    requests = training_requests(shop)
    newest = np.argsort(shop.histories.time_ms[requests.event], kind="stable")
    late = np.sort(newest[-max(most, (len(newest) + 1) // 2) :])
    requests = sample(EvaluationWindow(requests.event[late], requests.user[late]), most)
    parts = [
        EvaluationWindow(requests.event[mine], requests.user[mine])
        for mine in (requests.user % FOLDS == fold for fold in range(FOLDS))
    ]
    fitted = [_examples_of(facts, part, fold) for fold, part in enumerate(parts)]
    whole = (np.concatenate(each) for each in zip(*fitted, strict=True))
    chosen = _examples_of(facts, sample(shop.validation, CHOOSE_ON), None)
    return Examples(*whole), Examples(*chosen)


def _examples_of(
    facts: Facts, wanted: EvaluationWindow, fold: int | None
) -> tuple[Floats, npt.NDArray[np.bool_], Ints]:
    """Return facts, answers and sizes of the requests that have an answer among candidates."""
    found = list[tuple[Floats, npt.NDArray[np.bool_], Ints]]()
    for part, each in _candidates(facts, wanted, fold):
        some = EvaluationWindow(wanted.event[part], wanted.user[part])
        answer = baskets(facts.shop, some).toarray()[each.request, each.item] > 0
        useful = np.bincount(each.request, answer, len(some.event)) > 0
        kept = useful[each.request]
        sizes = np.bincount(each.request, minlength=len(some.event))[useful]
        found.append((each.facts[kept], answer[kept], sizes))
    facts_RF, answers, sizes = (np.concatenate(each) for each in zip(*found, strict=True))
    return facts_RF, answers, sizes
