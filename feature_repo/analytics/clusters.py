"""Clusters of users whose vectors are alike, and in which words they can be told apart.

Belongs here: grouping vectors, and comparing groups with the whole population by figures that
people know. Where vectors come from and groups are kept is `services.audiences.clusters`'.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.calendar import DAY_MS
from feature_repo.analytics.suppression import K
from feature_repo.audiences.index import Index
from feature_repo.errors import InvalidInputError

MOST_CLUSTERS: Final = 12
LEAST_CLUSTERS: Final = 3
SAMPLE: Final = 2000
"""Users by whom numbers of clusters are compared."""
SPEND_DAYS: Final = 91
TOP_CATEGORIES: Final = 3
LEAST_SHARE: Final = 0.005
"""Share of a cluster's spend that a category must have to be named."""
_PARTS: Final = ("at night", "in the morning", "in the afternoon", "in the evening")

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Users in clusters.

    Attributes
    ----------
    labels
        Cluster of each vector, from 1 on, the largest first.
    silhouettes
        Mean silhouette (cosine) on the sample, by number of clusters that was tried.
    """

    labels: Labels
    silhouettes: dict[int, float]


def group(vectors: Vectors, *, seed: int = 7) -> Grouping:
    """Group vectors by direction, into the number of clusters with the highest silhouette.

    MiniBatchKMeans (Sculley, 2010) on vectors of length one; 3 to 12 clusters are tried, and only
    those numbers count that leave at least `K` users in every cluster.

    Parameters
    ----------
    vectors
        (users, dimensions), finite.

    Raises
    ------
    InvalidInputError
        If no number does, or there are fewer than twice `K` users.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import silhouette_score

    if len(vectors) < 2 * K:
        raise InvalidInputError(f"{len(vectors)} users: clusters need at least {2 * K}")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    dice = np.random.default_rng(seed)
    sample = dice.choice(len(unit), size=min(SAMPLE, len(unit)), replace=False)
    tried = dict[int, tuple[float, Labels]]()
    for number in range(LEAST_CLUSTERS, MOST_CLUSTERS + 1):
        fitted = MiniBatchKMeans(number, random_state=seed, n_init=5, batch_size=1024).fit(unit)
        labels = fitted.labels_.astype(np.int64)
        sizes = np.bincount(labels, minlength=number)
        if sizes.min() >= K and len(set(labels[sample].tolist())) == number:
            score = silhouette_score(unit[sample], labels[sample], metric="cosine")
            tried[number] = float(score), labels
    if not tried:
        raise InvalidInputError(f"no {LEAST_CLUSTERS} clusters of {K} users can be told apart")
    _, labels = max(tried.values(), key=lambda each: each[0])
    order = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(1, len(order) + 1)
    return Grouping(rank[labels], {number: round(s, 4) for number, (s, _) in tried.items()})


@dataclass(frozen=True, slots=True)
class Portrait:
    """What sets a cluster apart.

    Attributes
    ----------
    cluster, users
        Its number and its size.
    categories
        Of the second level, with how many times the population's share of spend they have.
    spend_ratio
        Mean spend of 91 days over the population's.
    recency_days
        Median days since the last order; None without orders.
    part, part_ratio
        Part of the day with the largest ratio of its share of orders to the population's.
    """

    cluster: int
    users: int
    categories: tuple[tuple[str, float], ...]
    spend_ratio: float
    recency_days: float | None
    part: str
    part_ratio: float

    def words(self) -> str:
        """Return it as a line for people.

        Examples
        --------
        >>> Portrait(2, 412, (("Food/Tea", 2.14),), 1.31, 3.0, "at night", 1.02).words()
        'Food/Tea 2.1 ×; spends 1.3 × the mean; last order 3 days ago (median)'
        """
        parts = [", ".join(f"{path} {ratio:.1f} ×" for path, ratio in self.categories)]
        parts += [f"spends {self.spend_ratio:.1f} × the mean"]
        if self.recency_days is not None:
            parts.append(f"last order {self.recency_days:.0f} days ago (median)")
        if self.part_ratio >= 1.1:
            parts.append(f"{self.part_ratio:.1f} × as often {self.part}")
        return "; ".join(part for part in parts if part)


def describe(index: Index, labels: Labels) -> list[Portrait]:
    """Return what sets each cluster apart, from the archive.

    A category is named if at least `K` of the cluster bought from it.

    Parameters
    ----------
    labels
        Of each user of the index, in order; 0: in none.
    """
    size, whole = int(labels.max(initial=0)) + 1, labels > 0
    spend = _spend(index, len(labels))
    ratios, buyers, shares, paths = _categories(index, labels, size)
    recency = _recency(index, len(labels))
    parts = _parts_of_day(index, labels, size)
    found = []
    for cluster in range(1, size):
        own = labels == cluster
        named = np.flatnonzero((buyers[cluster] >= K) & (shares[cluster] >= LEAST_SHARE))
        best = sorted(named, key=lambda at: -ratios[cluster, at])[:TOP_CATEGORIES]
        days = recency[own & ~np.isnan(recency)]
        part = int(parts[cluster].argmax())
        found.append(
            Portrait(
                cluster, int(own.sum()),
                tuple((paths[at], round(float(ratios[cluster, at]), 2)) for at in best),
                round(float(spend[own].mean() / max(float(spend[whole].mean()), 1e-9)), 2),
                None if len(days) < K else float(np.median(days)),
                _PARTS[part], round(float(parts[cluster, part]), 2),
            )
        )  # fmt: skip
    return found


def _spend(index: Index, users: int) -> npt.NDArray[np.float64]:
    rows = index.columns(
        "SELECT u, sum(spend_m)::DOUBLE AS spend FROM order_days WHERE day > $day GROUP BY u",
        {"day": index.newest_ms // DAY_MS - SPEND_DAYS},
    )
    spend = np.zeros(users)
    spend[rows["u"]] = rows["spend"]
    return spend


def _recency(index: Index, users: int) -> npt.NDArray[np.float64]:
    rows = index.columns("SELECT u, last_order_s FROM facts WHERE last_order_s IS NOT NULL")
    days = np.full(users, np.nan)
    days[rows["u"]] = (index.newest_ms / 1000 - rows["last_order_s"]) / (DAY_MS / 1000)
    return days


def _categories(
    index: Index, labels: Labels, size: int
) -> tuple[Any, Any, Any, list[str]]:  # fmt: skip
    """Return ratio, buyers and share of spend, (clusters, categories), and the categories."""
    paths = [str(row[0]) for row in index.rows(
        "SELECT path FROM shelves WHERE level = 2 ORDER BY shelf", {}
    )]  # fmt: skip
    rows = index.columns(
        "SELECT u, (dense_rank() OVER (ORDER BY shelf) - 1)::INTEGER AS place, spend FROM ("
        "SELECT shelf, u, coalesce(lines_m, 0)::DOUBLE AS spend FROM shelves "
        "LEFT JOIN (SELECT * FROM shelf_totals WHERE type = 'purchase') USING (shelf) "
        "WHERE level = 2) QUALIFY u IS NOT NULL"
    )
    cluster = labels[rows["u"]]
    key = cluster * len(paths) + rows["place"]
    spent = np.bincount(key, rows["spend"], size * len(paths)).reshape(size, -1)
    buyers = np.bincount(key, minlength=size * len(paths)).reshape(size, -1)
    all_spent = spent[1:].sum(axis=0)
    shares = spent / np.maximum(spent.sum(axis=1, keepdims=True), 1e-9)
    whole = all_spent / max(float(all_spent.sum()), 1e-9)
    return shares / np.maximum(whole, 1e-12), buyers, shares, paths


def _parts_of_day(index: Index, labels: Labels, size: int) -> npt.NDArray[np.float64]:
    """Return each cluster's share of orders in each quarter of the day over everybody's."""
    rows = index.columns(
        "SELECT u, (hour(timezone(coalesce(tz, 'UTC'), time)) // 6)::INTEGER AS part "
        "FROM archive_events JOIN users ON entity = \"user\" WHERE type = 'purchase'"
    )
    counts = np.bincount(labels[rows["u"]] * 4 + rows["part"], minlength=4 * size)
    counts = counts.reshape(size, 4).astype(float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    whole = counts[1:].sum(axis=0) / max(float(counts[1:].sum()), 1.0)
    return np.asarray(shares / np.maximum(whole, 1e-12))
