"""Clusters: groups that are there are found, none is small, and words say what sets them apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.analytics.clusters import describe, group
from feature_repo.audiences.index import Index
from feature_repo.errors import InvalidInputError
from tests.feature_repo import analytics_shop as shop


def scattered(*sizes: int) -> np.ndarray:
    """Return vectors about as many directions as there are sizes."""
    dice = np.random.default_rng(1)
    centres = np.eye(8)[: len(sizes)] * 5
    parts = [c + 0.3 * dice.normal(size=(n, 8)) for c, n in zip(centres, sizes, strict=True)]
    lengths = dice.uniform(0.5, 4, size=(sum(sizes), 1))
    return (np.concatenate(parts) * lengths).astype(np.float32)


@pytest.mark.parametrize("sizes", [(90, 60, 40), (200, 100, 80, 60, 30)])
def test_groups_that_are_there_are_found_largest_first(sizes: tuple[int, ...]) -> None:
    found = group(scattered(*sizes))
    assert [len(set(part)) for part in np.split(found.labels, np.cumsum(sizes)[:-1])] == [1] * len(
        sizes
    )
    assert list(np.bincount(found.labels)[1:]) == sorted(sizes, reverse=True)
    assert max(found.silhouettes, key=lambda n: found.silhouettes[n]) == len(sizes)


def test_no_cluster_is_of_fewer_than_twenty() -> None:
    found = group(scattered(100, 80, 60, 7))
    assert np.bincount(found.labels)[1:].min() >= 20
    for vectors in (scattered(20, 19), scattered(60, 12, 11)):
        with pytest.raises(InvalidInputError):
            group(vectors)


def test_what_sets_a_cluster_apart_is_what_pandas_finds(tmp_path: Path) -> None:
    events = shop.table()
    shop.write(tmp_path, events)
    bought = events[events.kind == "purchase"]
    lines = bought.explode(["categories", "prices"])
    jam = set(lines[lines.categories == "Food/Jam"].user)
    with Index(tmp_path) as index:
        users = [row[0] for row in index.rows("SELECT entity FROM users ORDER BY u", {})]
        labels = np.array([2 if user in jam else 1 for user in users])
        labels[:5] = 0
        found = {each.cluster: each for each in describe(index, labels)}
    cluster = dict(zip(users, labels, strict=True))
    lines = lines.assign(cluster=lines.user.map(cluster)).query("cluster > 0")
    spent = lines.groupby(["cluster", "categories"]).prices.sum().unstack()
    share = spent.div(spent.sum(axis=1), axis=0)
    whole = spent.sum() / spent.sum().sum()
    for number in (1, 2):
        ratios = (share.loc[number] / whole).dropna().sort_values(ascending=False)
        named = dict(found[number].categories)
        assert found[number].users == (labels == number).sum()
        assert set(named) <= set(ratios.index)
        for category, ratio in named.items():
            assert ratio == pytest.approx(ratios[category], abs=0.01)
    assert found[2].categories[0][0] == "Food/Jam"
    day = (int(events.time_ms.max())) // shop.DAY_MS
    recent = bought[bought.time_ms // shop.DAY_MS > day - 91]
    spend = pd.Series(0.0, index=users).add(
        recent.prices.map(sum).groupby(recent.user).sum(), fill_value=0
    )
    own = [user for user in users if cluster[user] == 2]
    everyone = [user for user in users if cluster[user] > 0]
    assert found[2].spend_ratio == pytest.approx(
        spend[own].mean() / spend[everyone].mean(), abs=0.01
    )
    assert "Food/Jam" in found[2].words()
