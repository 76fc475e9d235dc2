"""The next-category head: what categories a user buys from within the next 14 days.

For a profile vector u and category k, with X_γ,k the decayed counts (γ of `COLUMNS`) of the
history's items of that category, s_k its share among the interests that the feature service lists,
and r_k how often it is bought within 14 days by all::

    z_k     = logit(r_k) + log(1 + s_k / (.1 · r_k)) + .1 / 3 · Σ_γ log(1 + X_γ,k / (30 · r_k))
    p_k     = σ(α · (l(u) + softplus(m(u)) · z_k) + β)

Shares stand against what all buy: ``log(s + a·r)`` is the logarithm of a share shrunk to
popularity. The order within a user is that of z, which is not learned: every way to learn it
that was measured ranks worse (docs/model.md). Learned is how likely each is: l and m, linear in u.
The head keeps nothing of its own in a user's state: the counts are the repeat table's, of known
items only; the interests are the feature service's, of all that is bought.
α and β are 1 and 0 in training; `evaluation.calibration` sets them afterwards. What the answers
were is here too (`bought_within`); how they are measured is `evaluation.category_window`'s.

Shape legend: M moments, K categories, D width, R items in the history.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from feature_repo.profile_views.full import NEXT_CATEGORY_DAYS
from training.history.category_interests import Interests
from training.history.sequences import Histories, Ints, ranges
from training.history.vocabulary import DAY_MS, Vocabulary
from training.network.batches import Targets
from training.network.repeat_head import Pairs
from training.state.pair_features import FEATURES

NEXT_DAYS: Final = NEXT_CATEGORY_DAYS
COLUMNS: Final = tuple(FEATURES.index(n) for n in ("log_count", "log_days_30", "log_days_120"))
"""Logarithms of the counts that are added up by category."""
_SHRUNK: Final = 30.0
_SHRUNK_SHARE: Final = 0.1
_COUNT_WEIGHT: Final = 0.1
_ONE: Final = 0.5413  # softplus of it is 1
_LISTED: Final = 1.5  # what the listed ones begin above the others, about
_RARE: Final = 1e-4

Floats = npt.NDArray[np.float32]


class CategoryHead(nn.Module):
    """Logits of categories; see the module's docstring.

    Parameters
    ----------
    items, categories, dim
        Sizes of the vocabulary and of u.
    """

    of_item: Tensor

    def __init__(self, items: int, categories: int, dim: int) -> None:
        super().__init__()
        self.categories = categories
        self.chance = nn.Linear(dim, 2)  # of the probability; saved models name it so
        self.rate = nn.Parameter(torch.full((categories,), 0.05), requires_grad=False)
        self.calibration = nn.Parameter(torch.tensor([1.0, 0.0]), requires_grad=False)
        # Of the vocabulary, so not kept twice.
        self.register_buffer("of_item", torch.zeros(items, dtype=torch.long), persistent=False)
        with torch.no_grad():
            self.chance.weight.zero_()
            self.chance.bias.copy_(torch.tensor([-_LISTED, _ONE]))

    def know(self, vocabulary: Vocabulary) -> None:
        """Read which category each item is of."""
        self.of_item.copy_(torch.from_numpy(vocabulary.item_category))

    def start_from(self, rate_K: Floats) -> None:
        """Begin at how often each category is bought within 14 days, by all."""
        with torch.no_grad():
            self.rate.copy_(torch.from_numpy(rate_K).clamp(_RARE, 1 - _RARE))

    def forward(self, u_MD: Tensor, pairs: Pairs | None, interests: Interests) -> Tensor:
        """Return the logits, calibrated where that was fitted, shape (M, K)."""
        rate = self.rate[:, None]
        none = u_MD.new_zeros(len(u_MD), self.categories, len(COLUMNS))
        counts = none if pairs is None else self._counts(len(u_MD), pairs)
        share = interests.share.new_zeros(len(u_MD), self.categories + 1)
        share = share.scatter(1, interests.category, interests.share)[:, 1:, None]
        z = torch.special.logit(self.rate) + torch.log1p(share / (_SHRUNK_SHARE * rate))[:, :, 0]
        z = z + _COUNT_WEIGHT * torch.log1p(counts / (_SHRUNK * rate)).mean(dim=2)
        level, spread = self.chance(u_MD).float().unbind(dim=1)
        logits = level[:, None] + F.softplus(spread)[:, None] * z
        out: Tensor = logits * self.calibration[0] + self.calibration[1]
        return out

    def _counts(self, moments: int, pairs: Pairs) -> Tensor:
        """Add up the counts of the history's items by category, shape (M, K, γ)."""
        counts = torch.expm1(pairs.features[:, list(COLUMNS)])
        width = self.categories + 1  # row 0: items without a category
        index = pairs.owner * width + self.of_item[pairs.item - 1]
        added = counts.new_zeros(moments * width, len(COLUMNS)).index_add(0, index, counts)
        return added.view(moments, width, len(COLUMNS))[:, 1:]

    def calibrated(self) -> bool:
        """Say whether the probabilities were calibrated."""
        return bool((self.calibration != self.calibration.new_tensor([1.0, 0.0])).any())


def bought_within(histories: Histories, user: Ints, time_ms: Ints) -> Targets:
    """Return the distinct categories (from 0) bought within `NEXT_DAYS` of ``time_ms``.

    Parameters
    ----------
    user, time_ms
        Row of the user and time of each moment, shape (M,).
    """
    event, moment = list[Ints](), list[Ints]()
    order = np.argsort(user, kind="stable")
    bounds = np.searchsorted(user[order], np.arange(len(histories.users) + 1))
    for row in np.unique(user):
        mine = order[bounds[row] : bounds[row + 1]]
        start = int(histories.starts[row])
        part = slice(start, int(histories.starts[row + 1]))
        bought = np.flatnonzero(histories.target[part])
        times = histories.time_ms[part][bought]
        late = np.argsort(times, kind="stable")
        first = np.searchsorted(times[late], time_ms[mine])
        count = np.searchsorted(times[late], time_ms[mine] + NEXT_DAYS * DAY_MS) - first
        event.append(start + bought[late][ranges(first, count)])
        moment.append(np.repeat(mine, count))
    none = np.zeros(0, np.int64)
    return _distinct(
        histories, np.concatenate([none, *event]), np.concatenate([none, *moment]), len(user)
    )


def _distinct(histories: Histories, event: Ints, moment: Ints, moments: int) -> Targets:
    sizes = np.diff(histories.lines)[event]
    category = histories.category[ranges(histories.lines[event], sizes)]
    owner = np.repeat(moment, sizes)
    width = int(category.max(initial=0)) + 1
    pair = np.unique((owner * width + category)[category > 0])
    owner, category = pair // width, pair % width - 1
    return Targets(
        torch.from_numpy(owner),
        torch.from_numpy(category),
        torch.from_numpy(np.bincount(owner, minlength=moments)),
    )


def rates(histories: Histories, user: Ints, time_ms: Ints, categories: int) -> Floats:
    """Return how often each category is bought within 14 days of the moments, shape (K,)."""
    found = np.bincount(bought_within(histories, user, time_ms).item.numpy(), minlength=categories)
    out: Floats = (found / max(len(user), 1)).astype(np.float32)
    return out


def category_loss(logits_MK: Tensor, bought: Targets, known_M: Tensor) -> Tensor:
    """Return binary cross-entropy over all categories of the known moments, per category bought.

    Parameters
    ----------
    bought
        The categories bought within 14 days of each moment.
    known_M
        Whether those days lie in what may be seen; the others have no part.
    """
    labels = torch.zeros_like(logits_MK).index_put(
        (bought.owner, bought.item), logits_MK.new_ones(())
    )
    losses = F.binary_cross_entropy_with_logits(logits_MK, labels, reduction="none").sum(dim=1)
    return (losses * known_M).sum() / (bought.sizes * known_M).sum().clamp(min=1)
