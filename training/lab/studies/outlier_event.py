"""Outlier events: how far one odd event moves a profile."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.evaluation.baselines import EvaluationWindow
from training.history.sequences import Histories, Ints, ranges
from training.lab.comparison.protocol import CHUNK
from training.lab.comparison.shop import Shop
from training.lab.studies.update_strategies import Way

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Odd:
    """Requests, and the same after one event of a kind that the user never showed."""

    shop: Shop
    before: EvaluationWindow
    after: EvaluationWindow

    @classmethod
    def of(cls, shop: Shop, wanted: EvaluationWindow, generator: np.random.Generator) -> "Odd":
        """Put one item of a category that the user never had right before each request."""
        histories = shop.histories
        start = histories.starts[:-1][wanted.user]
        made = _with_one_more(histories.select(wanted.user, wanted.event - start + 1))
        odd = made.starts[1:] - 2
        item = _strange(made, shop, odd, generator)
        line = made.lines[odd]
        made.item[line] = item + 1
        made.category[line] = shop.vocabulary.item_category[item]
        users = np.arange(len(odd))
        return cls(shop.of(made), EvaluationWindow(odd, users), EvaluationWindow(odd + 1, users))


def _with_one_more(histories: Histories) -> Histories:
    """Double each user's last event, the first of the two cut to one line."""
    last = histories.starts[1:] - 1
    order = np.sort(np.concatenate([np.arange(len(histories.time_ms)), last]))
    sizes = np.diff(histories.lines)[order]
    starts = histories.starts + np.arange(len(histories.starts))
    odd = starts[1:] - 2
    sizes[odd] = 1
    line = ranges(histories.lines[order], sizes)
    return replace(
        histories,
        starts=starts, time_ms=histories.time_ms[order], kind=histories.kind[order],
        weight=histories.weight[order], target=histories.target[order],
        numeric=histories.numeric[order],
        lines=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        item=histories.item[line], category=histories.category[line],
    )  # fmt: skip


def _strange(histories: Histories, shop: Shop, odd: Ints, generator: np.random.Generator) -> Ints:
    """Return an item for each odd event, of a category with no line before it, from 0."""
    category = shop.vocabulary.item_category
    chosen = list[int]()
    for start, end in zip(histories.starts[:-1], odd, strict=True):
        had = np.unique(histories.category[histories.lines[start] : histories.lines[end]])
        free = np.flatnonzero((category > 0) & ~np.isin(category, had))
        chosen.append(int(generator.choice(free if len(free) else np.arange(len(category)))))
    return np.array(chosen, np.int64)


def jump(odd: Odd, way: Way) -> dict[str, float]:
    """Return how far one odd event moves a profile, from 0 to 1.

    ``shares`` is the total variation ``½ Σ|p − q|`` between the shares of categories, ``items``
    the part of the ten best items that is replaced.
    """
    moved, replaced = list[Floats](), list[Floats]()
    for begin in range(0, len(odd.before.event), CHUNK):
        part = slice(begin, begin + CHUNK)
        pair = [EvaluationWindow(w.event[part], w.user[part]) for w in (odd.before, odd.after)]
        before, after = (way.categories(odd.shop, w) for w in pair)
        moved.append(np.abs(before - after).sum(axis=1) / 2)
        best = [way.items(odd.shop, w).topk(10).indices for w in pair]
        same = (best[0][:, :, None] == best[1][:, None, :]).any(dim=2).float().mean(dim=1)
        replaced.append(1 - same.numpy())
    return {
        "shares": float(np.concatenate(moved).mean()),
        "items": float(np.concatenate(replaced).mean()),
    }
