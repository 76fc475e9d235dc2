"""Choosing, filtering and explaining items, without any store."""

from typing import Any

import numpy as np
import pytest

from services.catalogue import Catalogue, Entry
from services.recommend.recommender import Recommender, Wish
from services.recommend.shopper import Shopper

NOW = 1_700_000_000_000


class Fixed:
    """A model whose scores are the item's index."""

    def scores(self, state: bytes | None, now_ms: int, user_features: Any) -> Any:
        return np.arange(5, dtype=float)

    def item_embeddings(self) -> Any:
        return np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0], [0.5, 0.5]])


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue(client=None)
    for n in range(5):
        catalogue.entries[f"i{n}"] = Entry(f"i{n}", category=f"c{n % 2}/d", brand="b")
    return catalogue


@pytest.fixture
def by_model(catalogue: Catalogue) -> Recommender:
    return Recommender(catalogue, Fixed(), [f"i{n}" for n in range(5)], "fixed-1")


def ids(recommender: Recommender, shopper: Shopper, **wish: Any) -> list[str]:
    return [i["item_id"] for i in recommender.rank(shopper, Wish(**wish), NOW).items]


def test_the_models_order_is_kept(by_model: Recommender) -> None:
    assert ids(by_model, Shopper(learned=b"x"), n=3) == ["i4", "i3", "i2"]
    assert ids(by_model, Shopper(learned=b"x"), only=["i1", "new", "i3"]) == ["i3", "i1", "new"]


def test_what_must_not_be_shown_is_not(by_model: Recommender, catalogue: Catalogue) -> None:
    catalogue.entries["i4"].in_stock = False
    catalogue.entries["i3"].available_from = NOW + 1
    shopper = Shopper(learned=b"x", refused=["i2"])
    assert ids(by_model, shopper, excluded=["i0"]) == ["i1"]
    catalogue.entries["i3"].available_from = NOW
    catalogue.changes += 1
    assert ids(by_model, shopper, category="c1") == ["i3", "i1"]


def test_more_than_there_is_gives_what_there_is(by_model: Recommender) -> None:
    assert len(ids(by_model, Shopper(learned=b"x"), n=500)) == 5


def test_without_a_state_popularity_counts(by_model: Recommender) -> None:
    by_model.set_popular([("i2", 4.0), ("i0", 2.0)])
    assert ids(by_model, Shopper(), n=2) == ["i2", "i0"]
    interest = {"kind": "category", "key": "c1/d", "weight": 3.0, "evidence": {"purchase": 3}}
    shopper = Shopper(interests=[interest])
    ranking = by_model.rank(shopper, Wish(n=5, explain=True), NOW)
    assert ranking.items[0]["item_id"] in {"i1", "i3"}
    assert ranking.items[0]["reasons"][0] == {
        "code": "interest_category", "key": "c1/d", "evidence": {"purchase": 3},
    }  # fmt: skip
    assert (ranking.model, ranking.personalized) == (None, True)


def test_similar_items_by_embedding_leave_the_item_out(by_model: Recommender) -> None:
    method, found = by_model.similar("i0", 2, NOW)
    assert (method, [item for item, _ in found]) == ("embedding", ["i1", "i4"])
