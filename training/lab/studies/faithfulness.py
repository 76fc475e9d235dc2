"""Faithfulness of attributions: deletion, and random weights in the model's place.

**Deletion.** Without the k events of largest contribution the best item's score must fall
farther than without k events drawn at random. **Randomisation** (Adebayo et al., "Sanity Checks
for Saliency Maps", NeurIPS 2018): another network of the same shape must give other
contributions, or they explain the data and not the model.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.events.schema import EventRecord
from training.network.model_dir import Model
from training.scoring.attribution import EventContributions, leave_one_out
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

DELETED: Final = 5
DRAWS: Final = 5
"""Random deletions a user, averaged."""
DAY_MS: Final = 86_400_000

Doubles = npt.NDArray[np.float64]
Attribute = Callable[..., EventContributions]


@dataclass(frozen=True)
class Deletion:
    """How far the best item's score falls, by user.

    Attributes
    ----------
    top, drawn
        Without the events of largest contribution, and without random ones. Shape (U,).
    took_ms
        What each attribution took, milliseconds.
    """

    top: Doubles
    drawn: Doubles
    took_ms: list[float]

    @property
    def ratio(self) -> float | None:
        """Fall without the top events over that without random ones; None if that is no fall."""
        drawn = float(self.drawn.mean())
        return float(self.top.mean()) / drawn if drawn > 0 else None


def deletion(
    model: Model,
    histories: Sequence[Sequence[EventRecord]],
    *,
    last: int = 100,
    attribute: Attribute = leave_one_out,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Deletion:
    """Measure deletion on users with more than `DELETED` events that the model consumes.

    Parameters
    ----------
    histories
        One a user, in fold order; the request is a day after the last event.
    last
        Events that are attributed, and from which random ones are drawn.
    """
    scorer, transition = Scorer(model), LearnedTransition(model)
    draw, top, drawn, took_ms = random.Random(0), list[float](), list[float](), list[float]()  # noqa: S311
    for number, history in enumerate(histories):
        tell(number, len(histories))
        now_ms = history[-1].time_ms + DAY_MS
        row = _best(scorer, transition, history, now_ms)
        started_s = time.perf_counter()
        found = attribute(scorer, transition, history, [row], now_ms=now_ms, last=last)
        took_ms.append((time.perf_counter() - started_s) * 1000)
        if len(found.events) <= DELETED:
            continue
        order = np.argsort(-found.values[:, 0])[:DELETED]
        gone = [{found.events[k] for k in order}]
        gone += [set(draw.sample(found.events, DELETED)) for _ in range(DRAWS)]
        left = [[e for n, e in enumerate(history) if n not in dropped] for dropped in gone]
        scores = [float(scorer.scores(s, now_ms)[row]) for s in transition.replay(left)]
        falls = float(found.scores[0]) - np.array(scores)
        top.append(float(falls[0]))
        drawn.append(float(falls[1:].mean()))
    return Deletion(np.array(top), np.array(drawn), took_ms)


def likeness_to_random(
    model: Model,
    other: Model,
    histories: Sequence[Sequence[EventRecord]],
    *,
    seeds: int = 6,
    last: int = 40,
) -> Doubles:
    """Return rank correlations of contributions with those of random weights.

    One for each seed and user.

    Parameters
    ----------
    other
        The same model, loaded once more: its weights are overwritten, each table with normal
        numbers of its own deviation.
    """
    plain = Scorer(model), LearnedTransition(model)
    kept = [weight.detach().clone() for weight in other.network.parameters()]
    found = list[float]()
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        for weight, before in zip(other.network.parameters(), kept, strict=True):
            if weight.dim() > 1:
                drawn = torch.randn(before.shape, generator=generator)
                weight.data = drawn * before.std()
        random_one = Scorer(other), LearnedTransition(other)
        for history in histories:
            now_ms = history[-1].time_ms + DAY_MS
            row = [_best(*plain, history, now_ms)]
            one, two = (
                leave_one_out(*each, history, row, now_ms=now_ms, last=last).values[:, 0]
                for each in (plain, random_one)
            )
            found.append(spearman(one, two))
    return np.array(found)


def spearman(one: Doubles, other: Doubles) -> float:
    """Return the rank correlation of two rows of distinct numbers.

    Examples
    --------
    >>> round(spearman(np.array([1.0, 5.0, 9.0]), np.array([2.0, 3.0, 8.0])), 6)
    1.0
    """
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    both = (first - first.mean()) @ (second - second.mean())
    return float(both / (len(first) * first.std() * second.std()))


def _best(
    scorer: Scorer, transition: LearnedTransition, history: Sequence[EventRecord], now_ms: int
) -> int:
    state = transition.replay([history])[0]
    return int(np.argmax(scorer.scores(state, now_ms)))
