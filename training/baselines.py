"""Baselines that always stand beside the model, with a fair budget of tuning.

Popularity over all time and recent; decayed personal frequency, its decay tuned on the
validation window; logistic regression on the point-in-time user features for propensity.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from training.batches import make_targets
from training.examples import next_targets
from training.metrics import ranking_metrics
from training.sequences import Histories, Ints, ranges
from training.vocabulary import DAY_MS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
EVENT_DECAYS: Final = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
HALF_LIVES_DAYS: Final = (56.0, 112.0)
_POPULARITY_SHARE: Final = 1e-3


@dataclass(frozen=True)
class Decay:
    """How old baskets fade: per basket of the shopper, or by the calendar."""

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
class Window:
    """Target events to predict: flat event indices, and the user of each."""

    event: Ints
    user: Ints


def window(histories: Histories, since_ms: int, until_ms: int) -> Window:
    """Return the target events in ``[since, until)`` that have an event before them."""
    following = next_targets(histories)
    events = np.arange(len(following))
    owners = np.repeat(np.arange(len(histories.users)), histories.lengths())
    chosen = np.flatnonzero(following == events + 1)
    answer = following[chosen]
    inside = (histories.time_ms[answer] >= since_ms) & (histories.time_ms[answer] < until_ms)
    return Window(answer[inside], owners[chosen][inside])


def decayed_frequency(
    histories: Histories, wanted: Window, decay: Decay, popularity: Floats
) -> Doubles:
    """Return the metrics of decayed personal frequency at ``wanted``, shape (P, 4).

    ``score_i = Σ_baskets γ^age · [i in basket]``, ties broken by popularity; every basket is
    predicted and then counted. The full history counts: no capacity.
    """
    items = len(popularity)
    floor = _POPULARITY_SHARE * popularity / max(float(popularity.max(initial=0.0)), 1e-9)
    out = np.zeros((len(wanted.event), 4), np.float64)
    for user in np.unique(wanted.user):
        places = np.flatnonzero(wanted.user == user)
        rows = _user_scores(histories, int(user), wanted.event[places], decay, items)
        targets = make_targets(histories, wanted.event[places])
        out[places] = ranking_metrics(torch.from_numpy(rows + floor), targets)
    return out


def _user_scores(
    histories: Histories, user: int, answers: Ints, decay: Decay, items: int
) -> Floats:
    start = int(histories.starts[user])
    stop = int(answers[-1])
    event = np.arange(start, stop)
    counted = np.cumsum(histories.weight[event] > 0)
    sizes = np.diff(histories.lines)[event]
    item = histories.item[ranges(histories.lines[event], sizes)]
    owner = np.repeat(np.arange(len(event)), sizes)
    weight = np.repeat(histories.weight[event], sizes)
    scores = np.zeros((len(answers), items), np.float32)
    for row, answer in enumerate(answers):
        n = int(answer) - start
        lines = owner < n
        since = counted[n - 1] - counted[owner[lines]]
        now = histories.time_ms[answer - 1]
        days = (now - histories.time_ms[start + owner[lines]]) / DAY_MS
        faded = weight[lines] * decay.per_event**since * 0.5 ** (days / decay.half_life_days)
        scores[row] = np.bincount(item[lines], faded, minlength=items + 1)[1:]
    return scores


def tune_decay(
    histories: Histories, wanted: Window, popularity: Floats, *, most: int = 1500
) -> Decay:
    """Return the candidate with the best NDCG@10 on (an even sample of) ``wanted``."""
    stride = max(1, -(-len(wanted.event) // most))
    some = Window(wanted.event[::stride], wanted.user[::stride])
    scores = [
        float(np.nanmean(decayed_frequency(histories, some, decay, popularity)[:, 0]))
        for decay in CANDIDATES
    ]
    return CANDIDATES[int(np.argmax(scores))]


def popularity_metrics(histories: Histories, wanted: Window, popularity: Floats) -> Doubles:
    """Return the metrics of one fixed ranking at ``wanted``, shape (P, 4)."""
    parts = list[Doubles]()
    for begin in range(0, len(wanted.event), 512):
        event = wanted.event[begin : begin + 512]
        scores = torch.from_numpy(popularity).expand(len(event), -1)
        parts.append(ranking_metrics(scores, make_targets(histories, event)))
    return np.concatenate(parts) if parts else np.zeros((0, 4))


def logistic_regression(
    train_x: Floats, train_y: Floats, test_x: Floats
) -> npt.NDArray[np.float64]:
    """Return the chances that scikit-learn's logistic regression gives the test rows."""
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(max_iter=500).fit(train_x, train_y)
    chances: npt.NDArray[np.float64] = fitted.predict_proba(test_x)[:, 1]
    return chances
