"""A peer of the comparison: the settings that the tuning tries, and what is fitted for one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from training.evaluation.baselines import EvaluationWindow
from training.lab.comparison.histories import Fade, fade_histories
from training.lab.comparison.shop import Shop

Setting = Mapping[str, Any]
"""Plain values, for the reader too."""
Tell = Callable[[str], None]
_T = TypeVar("_T")


@dataclass
class Peer(ABC):
    """A model of the comparison; a subclass names it, and fits and asks it.

    Parameters
    ----------
    seed
        Of what is drawn while fitting.
    tell
        Called with a line on how fitting goes.

    Attributes
    ----------
    name
        As results show it.
    grid
        Values of each setting, best guess first; see `settings`.
    seeded
        Whether another seed gives another model: it is then fitted for each.
    repeats
        Whether it can only recommend what a user had.
    dense
        Whether it inverts a matrix of all items.
    timed
        Whether it is told the time of each request.
    """

    name: ClassVar[str]
    grid: ClassVar[Setting] = {}
    seeded: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    shop: Shop
    seed: int = 0
    tell: Tell = print
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def settings(self) -> Iterable[Setting]:
        """Return the settings in the order in which they are tried: the grid's products."""
        return (dict(zip(self.grid, one, strict=True)) for one in product(*self.grid.values()))

    @abstractmethod
    def fit(self, setting: Setting) -> None:
        """Make what `score` reads, out of the training period."""

    @abstractmethod
    def score(self, wanted: EvaluationWindow) -> Tensor:
        """Return the scores of requests, shape (P, N)."""

    def fit_copy(self, setting: Setting) -> Self:
        """Return a peer of its own that is fitted for a setting."""
        one = copy(self)
        one.fit(setting)
        return one

    def once(self, make: Callable[..., _T], *given: Any) -> _T:
        """Return ``make(*given)``, made again only where plain values or objects differ."""
        key = [one if isinstance(one, int | float | Fade) else id(one) for one in given]
        if self._made.get(make, (None,))[0] != key:
            self._made[make] = key, given, make(*given)  # what is kept keeps its id
        return self._made[make][2]  # type: ignore[no-any-return]


class Added(Peer):
    """A peer that adds up parts: faded histories, or those times item-item rows."""

    parts: list[tuple[float, Any, Fade]]
    """Share, rows (None: the history itself), and how the history fades."""

    def score(self, wanted: EvaluationWindow) -> Tensor:
        """Return the sum of the parts."""
        found = [
            share * dense(past if rows is None else past @ rows)
            for share, rows, fade in self.parts
            for past in [fade_histories(self.shop, wanted, fade)]
        ]
        return sum(found[1:], found[0])


def dense(values: Any) -> Tensor:
    """Return a sparse or dense matrix as a tensor."""
    laid = values.toarray() if sp.issparse(values) else values
    return torch.from_numpy(np.asarray(laid, np.float32))
