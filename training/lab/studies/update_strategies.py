"""Three ways to update a profile, by one measure: rules, clusters, and learned.

- `RuleStrategy`: decayed counts of what a user did, by category and by item. The decay is tuned.
- `Clusters`: mini-batch k-means over those category counts (Sculley, "Web-Scale K-Means
  Clustering", WWW 2010); a user's profile is the nearest centroid, and each event may move
  them to another. Number of clusters and decay are tuned.
- `LearnedStrategy`: Portrait's own model; a category's share is the sum over its items.

All read the same histories, up to the same requests. A profile is asked for shares of
categories, shape (P, C), and scores of items, shape (P, N).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from training.evaluation.baselines import EvaluationWindow
from training.evaluation.metrics import Doubles, ranking_metrics
from training.history.sequences import Ints
from training.lab.comparison import portrait_model
from training.lab.comparison.histories import Fade, baskets, fade_histories, training_requests
from training.lab.comparison.peer import dense
from training.lab.comparison.protocol import CHUNK, sample
from training.lab.comparison.shop import Shop
from training.neighbours import item_rows
from training.network.batches import Targets, make_targets

Floats = npt.NDArray[np.float32]
FEW: Final = 1e-3
DECAYS: Final = (0.9, 0.95, 0.97, 0.99, 0.8)
CLUSTERS: Final = (16, 64, 256)
CHOOSE_ON: Final = 1500


class Way(Protocol):
    """A way to keep a profile, fitted to a shop."""

    def items(self, shop: Shop, wanted: EvaluationWindow) -> torch.Tensor:
        """Return the scores of items, shape (P, N)."""
        ...

    def categories(self, shop: Shop, wanted: EvaluationWindow) -> Floats:
        """Return shares of categories that add up to 1, shape (P, C)."""
        ...


@dataclass(frozen=True)
class CategoryOfItems:
    """What is in which category; ``matrix`` has shape (N, C)."""

    matrix: Any
    popular: Floats
    shares: Floats

    @classmethod
    def of(cls, shop: Shop) -> "CategoryOfItems":
        """Read it from a shop."""
        category = shop.vocabulary.item_category
        known = category > 0
        shape = (shop.items, len(shop.vocabulary.categories))
        ones = np.ones(int(known.sum()), np.float32)
        matrix = sp.csr_matrix((ones, (np.flatnonzero(known), category[known] - 1)), shape)
        popular = item_rows.recent_popularity(
            shop.histories, shop.items, until_ms=shop.split.train_until_ms, half_life_days=112.0
        )
        return cls(matrix, popular / max(float(popular.sum()), 1e-9), _shares(popular @ matrix))


def _shares(weights: Any) -> Floats:
    laid = np.maximum(dense(weights).numpy(), 0.0)
    out: Floats = laid / np.maximum(laid.sum(axis=-1, keepdims=True), 1e-9)
    return out


@dataclass(frozen=True)
class RuleStrategy:
    """Decayed counts; who has none is shown what everybody likes."""

    catalogue: CategoryOfItems
    per_event: float

    def _counts(self, shop: Shop, wanted: EvaluationWindow) -> Any:
        return fade_histories(shop, wanted, Fade(per_event=self.per_event))

    def items(self, shop: Shop, wanted: EvaluationWindow) -> torch.Tensor:
        """Score by counts, then by popularity within the favourite categories."""
        counts = self._counts(shop, wanted)
        inside = _shares(counts @ self.catalogue.matrix) @ self.catalogue.matrix.T
        return torch.from_numpy(
            counts.toarray()
            + 1e-2 * inside * self.catalogue.popular
            + 1e-6 * self.catalogue.popular
        )

    def categories(self, shop: Shop, wanted: EvaluationWindow) -> Floats:
        """Share out the decayed counts."""
        counts = dense(self._counts(shop, wanted) @ self.catalogue.matrix).numpy()
        return _shares(counts + FEW * self.catalogue.shares)


@dataclass(frozen=True)
class Clusters:
    """The nearest of K centroids of category shares, and what its members buy."""

    catalogue: CategoryOfItems
    per_event: float
    centroids: Floats
    liked: Floats

    @classmethod
    def fit(
        cls, shop: Shop, catalogue: CategoryOfItems, per_event: float, clusters: int, seed: int
    ) -> "Clusters":
        """Cluster the profiles that stood before training baskets, and count those baskets."""
        from sklearn.cluster import MiniBatchKMeans

        requests = sample(training_requests(shop), 20_000)
        profiles = RuleStrategy(catalogue, per_event).categories(shop, requests)
        means = MiniBatchKMeans(
            min(clusters, len(profiles)), batch_size=1024, n_init=3, random_state=seed
        )
        member = means.fit_predict(profiles)
        into = sp.csr_matrix(
            (np.ones(len(member), np.float32), (member, np.arange(len(member)))),
            (means.n_clusters, len(member)),
        )
        counts = (into @ baskets(shop, requests)).toarray()
        size = counts.sum(axis=1, keepdims=True)
        liked = (counts + 20.0 * catalogue.popular) / (size + 20.0)
        return cls(catalogue, per_event, means.cluster_centers_.astype(np.float32), liked)

    def nearest(self, profiles: Floats) -> Ints:
        """Return the cluster of each profile, shape (P,)."""
        length = (self.centroids**2).sum(axis=1)
        out: Ints = np.argmin(length[None, :] - 2 * profiles @ self.centroids.T, axis=1)
        return out

    def _cluster(self, shop: Shop, wanted: EvaluationWindow) -> Ints:
        return self.nearest(RuleStrategy(self.catalogue, self.per_event).categories(shop, wanted))

    def items(self, shop: Shop, wanted: EvaluationWindow) -> torch.Tensor:
        """Score by what the cluster buys."""
        return torch.from_numpy(self.liked[self._cluster(shop, wanted)])

    def categories(self, shop: Shop, wanted: EvaluationWindow) -> Floats:
        """Share out what the cluster buys."""
        shares: Floats = _shares(self.liked @ self.catalogue.matrix)
        out: Floats = shares[self._cluster(shop, wanted)]
        return out


@dataclass(frozen=True)
class LearnedStrategy:
    """Portrait's own network and memories."""

    catalogue: CategoryOfItems
    answers: portrait_model.Answers

    def items(self, shop: Shop, wanted: EvaluationWindow) -> torch.Tensor:
        """Score as the model does."""
        answers = self.answers if shop is self.answers.shop else replace(self.answers, shop=shop)
        return answers(wanted)

    def categories(self, shop: Shop, wanted: EvaluationWindow) -> Floats:
        """Add up the items' probabilities."""
        return _shares(torch.softmax(self.items(shop, wanted), 1).numpy() @ self.catalogue.matrix)


def by_category(shop: Shop, wanted: EvaluationWindow, way: Way) -> Doubles:
    """Return `training.evaluation.metrics.NAMES` of the next basket's categories, shape (P, 4)."""
    category = torch.from_numpy(shop.vocabulary.item_category)
    count, parts = len(shop.vocabulary.categories), list[Doubles]()
    for begin in range(0, len(wanted.event), CHUNK):
        some = EvaluationWindow(
            wanted.event[begin : begin + CHUNK], wanted.user[begin : begin + CHUNK]
        )
        lines = make_targets(shop.histories, some.event)
        own_category = category[lines.item]
        pair = torch.unique((lines.owner * (count + 1) + own_category)[own_category > 0])
        owner = pair // (count + 1)
        targets = Targets(
            owner, pair % (count + 1) - 1, torch.bincount(owner, minlength=len(some.event))
        )
        shares = torch.from_numpy(way.categories(shop, some))
        parts.append(ranking_metrics(shares, targets))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Ways:
    """The three, each tuned on the validation period by NDCG@10 of the next category."""

    shop: Shop
    answers: portrait_model.Answers

    @cached_property
    def catalogue(self) -> CategoryOfItems:
        """Return the categories of the shop."""
        return CategoryOfItems.of(self.shop)

    def tune(self) -> tuple[dict[str, Way], dict[str, Any]]:
        """Return the ways by name, and what was chosen for each."""
        requests = sample(self.shop.validation, CHOOSE_ON)
        rules: dict[tuple[float, ...], Way] = {
            (g,): RuleStrategy(self.catalogue, g) for g in DECAYS
        }
        clusters: dict[tuple[float, ...], Way] = {
            (g, k): Clusters.fit(self.shop, self.catalogue, g, k, seed=7)
            for g, k in product(DECAYS[:3], CLUSTERS)
        }
        ways: dict[str, Way] = {}
        chosen: dict[str, Any] = {}
        for name, tried in (("rules", rules), ("clusters", clusters)):
            value = {
                setting: float(np.nanmean(by_category(self.shop, requests, way)[:, 0]))
                for setting, way in tried.items()
            }
            best = max(value, key=lambda setting: value[setting])
            ways[name] = tried[best]
            chosen[name] = dict(zip(("per_event", "clusters"), best, strict=False))
        ways["learned"] = LearnedStrategy(self.catalogue, self.answers)
        return ways, chosen
