"""Baselines that always stand beside the model, with a fair budget of tuning.

Popularity over all time and recent; decayed personal frequency, its decay tuned on the
validation window; logistic regression on the point-in-time user features for propensity.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from training.evaluation.metrics import metrics_of
from training.history.sequences import Histories, Ints, ranges
from training.history.vocabulary import DAY_MS
from training.network.batches import make_targets
from training.network.examples import next_targets

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
EVENT_DECAYS: Final = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
HALF_LIVES_DAYS: Final = (56.0, 112.0)
_POPULARITY_SHARE: Final = 1e-3


@dataclass(frozen=True)
class Decay:
    """How old baskets fade: per basket of the user, or by the calendar."""

    per_event: float = 1.0
    half_life_days: float = float("inf")

    def describe(self) -> dict[str, float | None]:
        """Return the plain form."""
        finite = np.isfinite(self.half_life_days)
        return {
            "per_event": self.per_event,
            "half_life_days": self.half_life_days if finite else None,
        }


CANDIDATES: Final = tuple(Decay(per_event=g) for g in EVENT_DECAYS) + tuple(
    Decay(half_life_days=d) for d in HALF_LIVES_DAYS
)


@dataclass(frozen=True)
class EvaluationWindow:
    """Target events to predict: flat event indices, and the user of each."""

    event: Ints
    user: Ints


def window(histories: Histories, since_ms: int, until_ms: int) -> EvaluationWindow:
    """Return the target events in ``[since, until)`` that have an event before them."""
    following = next_targets(histories)
    events = np.arange(len(following))
    owners = np.repeat(np.arange(len(histories.users)), histories.lengths())
    chosen = np.flatnonzero(following == events + 1)
    answer = following[chosen]
    inside = (histories.time_ms[answer] >= since_ms) & (histories.time_ms[answer] < until_ms)
    return EvaluationWindow(answer[inside], owners[chosen][inside])


def decayed_frequency(
    histories: Histories, wanted: EvaluationWindow, decay: Decay, popularity: Floats
) -> Doubles:
    """Return the metrics of decayed personal frequency at ``wanted``, shape (P, 4).

    ``score_i = Σ_baskets γ^age · [i in basket]``, ties broken by popularity; every basket is
    predicted and then counted. The full history counts: no capacity.
    """
    floor = _POPULARITY_SHARE * popularity / max(float(popularity.max(initial=0.0)), 1e-9)
    fixed = _Fixed(floor)
    out = np.zeros((len(wanted.event), 4), np.float64)
    for user in np.unique(wanted.user):
        indices = np.flatnonzero(wanted.user == user)
        raised = _user_scores(histories, int(user), wanted.event[indices], decay, floor)
        targets = make_targets(histories, wanted.event[indices])
        rank = [
            fixed.rank(j, *raised[p])
            for p, j in zip(targets.owner.tolist(), targets.item.tolist(), strict=True)
        ]
        out[indices] = metrics_of(torch.tensor(rank, dtype=torch.float64), targets)
    return out


class _Fixed:
    """A ranking of all items that is the same for everybody, but for a few raised ones.

    Parameters
    ----------
    scores
        Shape (N,); of equals the lower row stands first.
    """

    def __init__(self, scores: Floats) -> None:
        self._scores = scores
        self._order = np.argsort(-scores, kind="stable")
        self._falling = -scores[self._order]

    def ranks(self) -> Ints:
        """Return the rank of every item, from 1, shape (N,)."""
        out = np.empty(len(self._order), np.int64)
        out[self._order] = np.arange(1, len(out) + 1)
        return out

    def rank(self, item: int, raised: Ints, scores: Floats) -> int:
        """Return an item's rank where the items ``raised`` have other ``scores``."""
        own = np.flatnonzero(raised == item)
        score = scores[own[0]] if len(own) else self._scores[item]
        left, right = (
            int(np.searchsorted(self._falling, -score, side)) for side in ("left", "right")
        )
        before = left + int(np.searchsorted(self._order[left:right], item))
        was = self._scores[raised]
        gone = (was > score) | ((was == score) & (raised < item))
        come = (scores > score) | ((scores == score) & (raised < item))
        return before - int(gone.sum()) + int(come.sum()) + 1


def _user_scores(
    histories: Histories, user: int, answers: Ints, decay: Decay, floor: Floats
) -> list[tuple[Ints, Floats]]:
    """Return the items (from 0) that a user had at each answer, and their scores."""
    start = int(histories.starts[user])
    stop = int(answers[-1])
    event = np.arange(start, stop)
    counted = np.cumsum(histories.weight[event] > 0)
    sizes = np.diff(histories.lines)[event]
    item = histories.item[ranges(histories.lines[event], sizes)]
    owner = np.repeat(np.arange(len(event)), sizes)
    weight = np.repeat(histories.weight[event], sizes)
    found = list[tuple[Ints, Floats]]()
    for answer in answers:
        n = int(answer) - start
        lines = owner < n
        since = counted[n - 1] - counted[owner[lines]]
        now = histories.time_ms[answer - 1]
        days = (now - histories.time_ms[start + owner[lines]]) / DAY_MS
        faded = weight[lines] * decay.per_event**since * 0.5 ** (days / decay.half_life_days)
        row, index = np.unique(item[lines], return_inverse=True)
        count = np.bincount(index, faded, minlength=len(row)).astype(np.float32)
        had = row > 0
        found.append((row[had] - 1, count[had] + floor[row[had] - 1]))
    return found


def tune_decay(
    histories: Histories, wanted: EvaluationWindow, popularity: Floats, *, most: int = 10_000
) -> Decay:
    """Return the candidate with the best NDCG@10 on (an even sample of) ``wanted``."""
    stride = max(1, -(-len(wanted.event) // most))
    some = EvaluationWindow(wanted.event[::stride], wanted.user[::stride])
    scores = [
        float(np.nanmean(decayed_frequency(histories, some, decay, popularity)[:, 0]))
        for decay in CANDIDATES
    ]
    return CANDIDATES[int(np.argmax(scores))]


def popularity_metrics(
    histories: Histories, wanted: EvaluationWindow, popularity: Floats
) -> Doubles:
    """Return the metrics of one fixed ranking at ``wanted``, shape (P, 4)."""
    targets = make_targets(histories, wanted.event)
    rank = _Fixed(popularity).ranks()[targets.item.numpy()]
    return metrics_of(torch.from_numpy(rank).double(), targets)


def logistic_regression(
    train_x: Floats, train_y: Floats, test_x: Floats
) -> npt.NDArray[np.float64]:
    """Return the probabilities that scikit-learn's logistic regression gives the test rows."""
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(max_iter=500).fit(train_x, train_y)
    probabilities: npt.NDArray[np.float64] = fitted.predict_proba(test_x)[:, 1]
    return probabilities
