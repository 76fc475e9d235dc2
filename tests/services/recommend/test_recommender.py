"""Choosing, filtering and explaining items, without any store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model

from services.catalogue.catalogue import Catalogue, Entry
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.recommender import Recommender
from services.recommend.rules import Rules
from services.recommend.user_context import UserContext
from tests.services.recommend.shoppers import shopper_with
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

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


def ids(recommender: Recommender, shopper: UserContext, **request: Any) -> list[str]:
    recommender.rank(shopper, RecommendationRequest(**request), NOW)
    recommender.settle()  # what is near a new item is found aside
    return [
        i["item_id"] for i in recommender.rank(shopper, RecommendationRequest(**request), NOW).items
    ]


def test_the_models_order_is_kept(by_model: Recommender) -> None:
    assert ids(by_model, shopper_with(b"x"), n=3) == ["i4", "i3", "i2"]
    assert ids(by_model, shopper_with(b"x"), only=["i1", "new", "i3"]) == [
        "i3",
        "i1",
        "new",
    ]


def test_what_must_not_be_shown_is_not(by_model: Recommender, catalogue: Catalogue) -> None:
    catalogue.entries["i4"].in_stock = False
    catalogue.entries["i3"].available_from = NOW + 1
    shopper = shopper_with(learned=b"x", refused=["i2"])
    assert ids(by_model, shopper, excluded=["i0"]) == ["i1"]
    catalogue.entries["i3"].available_from = NOW
    catalogue.changes += 1
    assert ids(by_model, shopper, category="c1") == ["i3", "i1"]


def test_more_than_there_is_gives_what_there_is(by_model: Recommender) -> None:
    assert len(ids(by_model, shopper_with(b"x"), n=500)) == 5


def test_without_a_state_popularity_counts(by_model: Recommender) -> None:
    by_model.set_popular([("i2", 4.0), ("i0", 2.0)])
    assert ids(by_model, shopper_with(), n=2) == ["i2", "i0"]
    interest = {"kind": "category", "key": "c1/d", "weight": 3.0, "evidence": {"purchase": 3}}
    shopper = shopper_with(interests=[interest])
    ranking = by_model.rank(shopper, RecommendationRequest(n=5, explain=True), NOW)
    assert ranking.items[0]["item_id"] in {"i1", "i3"}
    assert ranking.items[0]["reasons"][0] == {
        "code": "interest_category", "key": "c1/d", "evidence": {"purchase": 3},
    }  # fmt: skip
    assert (ranking.model, ranking.personalized) == (None, True)


def test_similar_items_by_embedding_leave_the_item_out(by_model: Recommender) -> None:
    method, found = by_model.similar("i0", 2, NOW)()
    assert (method, [item for item, _ in found]) == ("embedding", ["i1", "i4"])


def test_the_models_ranking_is_the_models_own(tmp_path: Path) -> None:
    model = small_model.make(tmp_path)
    scorer, transition = Scorer(model), LearnedTransition(model)
    catalogue = Catalogue(client=None)
    for item in small_model.ITEMS:
        catalogue.entries[item] = Entry(item, category=small_model.category(item))
    recommender = Recommender(catalogue, scorer, model.vocabulary.items, model.version)
    for length in (1, 5, 12):
        state = transition.replay([small_model.HISTORY[:length]])[0]
        scores = scorer.scores(state, NOW)
        order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
        for n in (1, 10, 40, 100):
            ranking = recommender.rank(shopper_with(state), RecommendationRequest(n), NOW)
            assert [i["item_id"] for i in ranking.items] == [
                small_model.ITEMS[row] for row in order[:n]
            ]
            shown = [i["score"] for i in ranking.items]
            assert shown == [round(float(scores[row]), 6) for row in order[:n]]
    # Items that the model does not know change nothing about the others' order.
    catalogue.entries["other"] = Entry("other", category="D0/S0")
    catalogue.added_ms["other"] = NOW
    catalogue.changes += 1
    found = [
        i["item_id"]
        for i in recommender.rank(shopper_with(state), RecommendationRequest(100), NOW).items
    ]
    assert "other" in found
    found.remove("other")
    assert found == [small_model.ITEMS[row] for row in order]


def test_a_new_item_is_worth_what_its_neighbours_are(
    by_model: Recommender, catalogue: Catalogue
) -> None:
    catalogue.entries["new"] = Entry("new", category="c1/d", brand="b")
    catalogue.added_ms["new"] = NOW
    catalogue.entries["old"] = Entry("old", category="c1/d", brand="b")  # imported, no events
    catalogue.changes += 1
    ids(by_model, shopper_with(b"x"))
    ranking = by_model.rank(shopper_with(b"x"), RecommendationRequest(10, explain=True), NOW)
    entry = next(i for i in ranking.items if i["item_id"] == "new")
    # i1 and i3 share both levels (two items of five have each) and the brand, the others only
    # the brand, which all five have.
    level, brand = np.log(7 / 3), np.log(7 / 6)
    far = (brand / (2 * level + brand)) ** 2
    expected = (1 + 3 + far * (0 + 2 + 4)) / (2 + 3 * far)
    assert entry["score"] == pytest.approx(expected, abs=1e-6)
    assert entry["sources"] == ["new"]
    assert ids(by_model, shopper_with(b"x"), n=10) == ["i4", "i3", "i2", "new", "i1", "i0"]
    assert ids(by_model, shopper_with(b"x"), only=["i0", "old", "i4"]) == [
        "i4",
        "old",
        "i0",
    ]
    # An edit counts as soon as it has been looked at.
    catalogue.entries["new"] = Entry("new", category="c0/d")
    catalogue.changes += 1
    ids(by_model, shopper_with(b"x"))
    ranking = by_model.rank(shopper_with(b"x"), RecommendationRequest(10), NOW)
    entry = next(i for i in ranking.items if i["item_id"] == "new")
    assert entry["score"] == pytest.approx((0 + 2 + 4) / 3)
    # After a month it is not new any more.
    later = NOW + 31 * 86_400_000
    assert "new" not in {
        i["item_id"]
        for i in by_model.rank(shopper_with(b"x"), RecommendationRequest(10), later).items
    }


def test_a_placement_can_want_new_items(by_model: Recommender, catalogue: Catalogue) -> None:
    catalogue.entries["new"] = Entry("new", category="c0/d")
    catalogue.added_ms["new"] = NOW
    catalogue.changes += 1
    wanted = RecommendationRequest(2, rules=Rules(new_items=1))
    found = by_model.rank(shopper_with(b"x"), wanted, NOW).items
    assert [i["item_id"] for i in found] == ["i4", "new"]


def test_what_the_catalogue_deleted_is_not_offered(
    by_model: Recommender, catalogue: Catalogue
) -> None:
    catalogue.entries.pop("i4")
    catalogue.removed.add("i4")
    catalogue.changes += 1
    assert ids(by_model, shopper_with(b"x"), n=2) == ["i3", "i2"]


def test_a_model_that_fails_is_answered_without(catalogue: Catalogue) -> None:
    class Broken(Fixed):
        def scores(self, state: bytes | None, now_ms: int, user_features: Any) -> Any:
            raise RuntimeError

    recommender = Recommender(catalogue, Broken(), [f"i{n}" for n in range(5)], "broken-1")
    recommender.set_popular([("i2", 4.0), ("i0", 2.0)])
    ranking = recommender.rank(shopper_with(b"x"), RecommendationRequest(2), NOW)
    assert [i["item_id"] for i in ranking.items] == ["i2", "i0"]
    assert (ranking.failed, ranking.model) == (True, None)


def test_where_there_is_a_catalogue_only_what_it_has_is_offered(catalogue: Catalogue) -> None:
    """Whatever makes an item a candidate: events that anybody may send name anything."""
    vocabulary = [f"i{n}" for n in range(5)] + ["unlisted"]

    class Wide(Fixed):
        def scores(self, state: bytes | None, now_ms: int, user_features: Any) -> Any:
            return np.arange(6, dtype=np.float32)

        def item_embeddings(self) -> Any:
            return np.ones((6, 2), np.float32)

    interest = {"kind": "item", "key": "made-up", "weight": 9.0, "evidence": {}}
    known = shopper_with(interests=[interest], purchased=["unlisted"], seen=["made-up"])
    modelled = shopper_with(b"x", interests=[interest], purchased=[], seen=[])
    made = [Recommender(catalogue), Recommender(catalogue, Wide(), vocabulary, "wide-1")]
    for recommender in made:
        scores = [("made-up", 9.0), ("unlisted", 8.0), ("i0", 1.0)]
        recommender.set_popular(scores, scores)
        for shopper in (shopper_with(), known, modelled):
            for rules in (Rules(), Rules(in_stock=False), Rules(max_age_days=1)):
                found = recommender.rank(shopper, RecommendationRequest(10, rules=rules), NOW).items
                assert {i["item_id"] for i in found} == {f"i{n}" for n in range(5)}
        for item in ("i0", "unlisted", "made-up"):
            near = {other for other, _ in recommender.similar(item, 10, NOW)()[1]}
            assert near <= {f"i{n}" for n in range(5)}
    # Without a catalogue there is no other word for what the shop sells than its events.
    catalogue.entries.clear()
    catalogue.removed.add("i3")
    catalogue.changes += 1
    assert ids(made[0], shopper_with())[:3] == ["made-up", "unlisted", "i0"]
    assert "unlisted" in ids(made[1], modelled)
    assert "i3" not in ids(made[1], modelled)


def test_trends_count_beside_popularity(by_model: Recommender, catalogue: Catalogue) -> None:
    catalogue.entries["beyond"] = Entry("beyond")
    catalogue.changes += 1
    by_model.set_popular([("i2", 4.0), ("i0", 3.0)], [("i0", 5.0), ("beyond", 4.0)])
    found = by_model.rank(shopper_with(), RecommendationRequest(5, explain=True), NOW).items
    assert [i["item_id"] for i in found[:3]] == ["i0", "i2", "beyond"]
    assert found[0]["sources"] == ["trending"]
    # What is trending is a candidate though the model does not know it.
    assert "beyond" in ids(by_model, shopper_with(b"x"), n=10)


def test_similar_items_count_what_goes_together(catalogue: Catalogue) -> None:
    def together(row: int) -> Any:
        return np.array([0, 0, 0, 2.0, 1.0])

    recommender = Recommender(catalogue, Fixed(), [f"i{n}" for n in range(5)], "f-1", together)
    method, found = recommender.similar("i0", 4, NOW)()
    assert method == "embedding+co_occurrence"
    cosine = {"i1": 0.9 / np.hypot(0.9, 0.1), "i2": 0.0, "i3": -1.0, "i4": np.sqrt(0.5)}
    added = {"i1": 0.0, "i2": 0.0, "i3": 1.0, "i4": 0.5}
    assert dict(found) == pytest.approx({i: (cosine[i] + added[i]) / 2 for i in cosine}, abs=1e-6)
    catalogue.entries["new"] = Entry("new", category="c0/d")
    catalogue.changes += 1
    method, found = recommender.similar("new", 2, NOW)()
    assert (method, {item for item, _ in found}) == ("category", {"i0", "i2"})
    assert recommender.similar("unheard-of", 2, NOW)() == ("category", [])


def test_similar_items_may_come_up_with_new_popular_ones(catalogue: Catalogue) -> None:
    recommender = Recommender(catalogue)
    recommender.warm()
    recommender.set_popular([("sold", 5.0), ("i1", 1.0)])
    assert {item for item, _ in recommender.similar("i0", 5, NOW)()[1]} >= {"i2", "i4"}
