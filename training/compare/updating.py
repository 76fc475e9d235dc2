"""Three ways to update a profile, by one measure: rules, clusters, and learned.

- `Rules`: decayed counts of what a shopper did, by category and by item. The decay is tuned.
- `Clusters`: mini-batch k-means over those category counts (Sculley, "Web-Scale K-Means
  Clustering", WWW 2010); a shopper's profile is the nearest centroid, and each event may move
  them to another. Number of clusters and decay are tuned.
- `Learned`: Portrait's own model; a category's share is the sum of its items' chances.

All read the same histories, up to the same requests. A profile is asked for shares of
categories, shape (P, C), and scores of items, shape (P, N).
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from feature_repo.errors import InvalidInputError
from training import item_rows
from training.baselines import Window
from training.batches import Targets, make_targets
from training.compare import own
from training.compare.histories import Fade, baskets, faded, training_requests
from training.compare.measure import CHUNK, measure, sample
from training.compare.shop import Shop
from training.compare.study import Study
from training.compare.trials import dense
from training.metrics import Doubles, ranking_metrics
from training.sequences import Histories, Ints, ranges

Floats = npt.NDArray[np.float32]
DECAYS: Final = (0.9, 0.95, 0.97, 0.99, 0.8)
CLUSTERS: Final = (16, 64, 256)
CHOOSE_ON: Final = 1500
ODD: Final = 1000
"""Requests before which an odd event is put."""
FEW: Final = 1e-3


class Way(Protocol):
    """A way to keep a profile, fitted to a shop."""

    def items(self, shop: Shop, wanted: Window) -> torch.Tensor:
        """Return the scores of items, shape (P, N)."""
        ...

    def categories(self, shop: Shop, wanted: Window) -> Floats:
        """Return shares of categories that add up to 1, shape (P, C)."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """What is in which category; ``matrix`` has shape (N, C)."""

    matrix: Any
    popular: Floats
    shares: Floats

    @classmethod
    def of(cls, shop: Shop) -> "Catalogue":
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
class Rules:
    """Decayed counts; who has none is shown what everybody likes."""

    catalogue: Catalogue
    per_event: float

    def _counts(self, shop: Shop, wanted: Window) -> Any:
        return faded(shop, wanted, Fade(per_event=self.per_event))

    def items(self, shop: Shop, wanted: Window) -> torch.Tensor:
        """Score by counts, then by popularity within the favourite categories."""
        counts = self._counts(shop, wanted)
        inside = _shares(counts @ self.catalogue.matrix) @ self.catalogue.matrix.T
        return torch.from_numpy(
            counts.toarray()
            + 1e-2 * inside * self.catalogue.popular
            + 1e-6 * self.catalogue.popular
        )

    def categories(self, shop: Shop, wanted: Window) -> Floats:
        """Share out the decayed counts."""
        counts = dense(self._counts(shop, wanted) @ self.catalogue.matrix).numpy()
        return _shares(counts + FEW * self.catalogue.shares)


@dataclass(frozen=True)
class Clusters:
    """The nearest of K centroids of category shares, and what its members buy."""

    catalogue: Catalogue
    per_event: float
    centroids: Floats
    liked: Floats

    @classmethod
    def fit(
        cls, shop: Shop, catalogue: Catalogue, per_event: float, clusters: int, seed: int
    ) -> "Clusters":
        """Cluster the profiles that stood before training baskets, and count those baskets."""
        from sklearn.cluster import MiniBatchKMeans

        asked = sample(training_requests(shop), 20_000)
        profiles = Rules(catalogue, per_event).categories(shop, asked)
        means = MiniBatchKMeans(
            min(clusters, len(profiles)), batch_size=1024, n_init=3, random_state=seed
        )
        member = means.fit_predict(profiles)
        into = sp.csr_matrix(
            (np.ones(len(member), np.float32), (member, np.arange(len(member)))),
            (means.n_clusters, len(member)),
        )
        counts = (into @ baskets(shop, asked)).toarray()
        size = counts.sum(axis=1, keepdims=True)
        liked = (counts + 20.0 * catalogue.popular) / (size + 20.0)
        return cls(catalogue, per_event, means.cluster_centers_.astype(np.float32), liked)

    def nearest(self, profiles: Floats) -> Ints:
        """Return the cluster of each profile, shape (P,)."""
        length = (self.centroids**2).sum(axis=1)
        out: Ints = np.argmin(length[None, :] - 2 * profiles @ self.centroids.T, axis=1)
        return out

    def _cluster(self, shop: Shop, wanted: Window) -> Ints:
        return self.nearest(Rules(self.catalogue, self.per_event).categories(shop, wanted))

    def items(self, shop: Shop, wanted: Window) -> torch.Tensor:
        """Score by what the cluster buys."""
        return torch.from_numpy(self.liked[self._cluster(shop, wanted)])

    def categories(self, shop: Shop, wanted: Window) -> Floats:
        """Share out what the cluster buys."""
        shares: Floats = _shares(self.liked @ self.catalogue.matrix)
        out: Floats = shares[self._cluster(shop, wanted)]
        return out


@dataclass(frozen=True)
class Learned:
    """Portrait's own network and memories."""

    catalogue: Catalogue
    answers: own.Answers

    def items(self, shop: Shop, wanted: Window) -> torch.Tensor:
        """Score as the model does."""
        answers = self.answers if shop is self.answers.shop else replace(self.answers, shop=shop)
        return answers(wanted)

    def categories(self, shop: Shop, wanted: Window) -> Floats:
        """Add up the items' chances."""
        return _shares(torch.softmax(self.items(shop, wanted), 1).numpy() @ self.catalogue.matrix)


def by_category(shop: Shop, wanted: Window, way: Way) -> Doubles:
    """Return `training.metrics.NAMES` of the next basket's categories, shape (P, 4)."""
    category = torch.from_numpy(shop.vocabulary.item_category)
    count, parts = len(shop.vocabulary.categories), list[Doubles]()
    for begin in range(0, len(wanted.event), CHUNK):
        some = Window(wanted.event[begin : begin + CHUNK], wanted.user[begin : begin + CHUNK])
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
class Odd:
    """Requests, and the same after one event of a kind that the shopper never showed."""

    shop: Shop
    before: Window
    after: Window

    @classmethod
    def of(cls, shop: Shop, wanted: Window, generator: np.random.Generator) -> "Odd":
        """Put one item of a category that the shopper never had right before each request."""
        histories = shop.histories
        start = histories.starts[:-1][wanted.user]
        made = _with_one_more(histories.select(wanted.user, wanted.event - start + 1))
        odd = made.starts[1:] - 2
        item = _strange(made, shop, odd, generator)
        line = made.lines[odd]
        made.item[line] = item + 1
        made.category[line] = shop.vocabulary.item_category[item]
        users = np.arange(len(odd))
        return cls(shop.of(made), Window(odd, users), Window(odd + 1, users))


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
        pair = [Window(w.event[part], w.user[part]) for w in (odd.before, odd.after)]
        before, after = (way.categories(odd.shop, w) for w in pair)
        moved.append(np.abs(before - after).sum(axis=1) / 2)
        best = [way.items(odd.shop, w).topk(10).indices for w in pair]
        same = (best[0][:, :, None] == best[1][:, None, :]).any(dim=2).float().mean(dim=1)
        replaced.append(1 - same.numpy())
    return {
        "shares": float(np.concatenate(moved).mean()),
        "items": float(np.concatenate(replaced).mean()),
    }


@dataclass(frozen=True)
class Ways:
    """The three, each tuned on the validation period by NDCG@10 of the next category."""

    shop: Shop
    answers: own.Answers

    @cached_property
    def catalogue(self) -> Catalogue:
        """Return the categories of the shop."""
        return Catalogue.of(self.shop)

    def tuned(self) -> tuple[dict[str, Way], dict[str, Any]]:
        """Return the ways by name, and what was chosen for each."""
        asked = sample(self.shop.validation, CHOOSE_ON)
        rules: dict[tuple[float, ...], Way] = {(g,): Rules(self.catalogue, g) for g in DECAYS}
        clusters: dict[tuple[float, ...], Way] = {
            (g, k): Clusters.fit(self.shop, self.catalogue, g, k, seed=7)
            for g, k in product(DECAYS[:3], CLUSTERS)
        }
        ways: dict[str, Way] = {}
        chosen: dict[str, Any] = {}
        for name, tried in (("rules", rules), ("clusters", clusters)):
            value = {
                setting: float(np.nanmean(by_category(self.shop, asked, way)[:, 0]))
                for setting, way in tried.items()
            }
            best = max(value, key=lambda setting: value[setting])
            ways[name] = tried[best]
            chosen[name] = dict(zip(("per_event", "clusters"), best, strict=False))
        ways["learned"] = Learned(self.catalogue, self.answers)
        return ways, chosen


def updating(study: Study) -> dict[str, Any]:
    """Compare the three ways on a data set, and on a synthetic shop with planted changes.

    Returns
    -------
    dict
        See `training.compare.study.Study.result`; ``rows`` by way: next item as everywhere,
        ``next_category`` (NDCG@10), ``jump`` (see `jump`), ``adaptation`` (see
        `training.compare.adaptation`) and ``microseconds`` per event.

    Raises
    ------
    InvalidInputError
        If the data set has no categories.
    """
    from training.compare.adaptation import adaptation, step_costs

    shop = study.shop
    if len(shop.vocabulary.categories) < 2:
        raise InvalidInputError(f"{shop.name} has no categories: the three ways need some")
    seed = study.seeds[0]
    study.tell(0, 4, "fit")
    ways, chosen = Ways(shop, study.fit(seed)).tuned()
    odd = Odd.of(shop, sample(shop.test, ODD), np.random.default_rng(seed))
    items = {
        name: measure(shop, shop.test, lambda w, way=way: way.items(shop, w))  # type: ignore[misc]
        for name, way in ways.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        study.tell(1, 4, name)
        category = by_category(shop, shop.test, way)
        rows[name] = {
            **study.against(items[name], items["rules"]),
            "next_category": float(np.nanmean(category[:, 0])),
            "jump": jump(odd, way),
            "setting": chosen.get(name, {}),
        }
        study.say(f"{name}: next category NDCG@10 {rows[name]['next_category']:.4f}")
    study.tell(2, 4, "a shop with planted changes")
    for name, found in adaptation(study).items():
        rows[name]["adaptation"] = found
    study.tell(3, 4, "cost of an event")
    for name, microseconds in step_costs(shop, ways).items():
        rows[name]["microseconds"] = microseconds
    return study.result("updating", rows)


def timed(step: Any, count: int) -> float:
    """Return microseconds of one call of ``step(n)``, the least of three rounds."""
    rounds = list[float]()
    for _ in range(3):
        began = time.perf_counter()
        for n in range(count):
            step(n)
        rounds.append((time.perf_counter() - began) / count * 1e6)
    return min(rounds)
