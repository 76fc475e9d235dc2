"""Very many items are searched: the answers are those that the scores of all items give."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalogue.catalogue import Catalogue, Entry
from services.recommend import assortment, recommender
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.recommender import Recommender
from services.recommend.rules import DAY_MS, Rules
from services.recommend.user_context import UserContext
from tests.services.recommend.shoppers import shopper_with
from training.scoring.query import ScoreQuery
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

NOW = small_model.NOW_MS

_rules = st.fixed_dictionaries(
    {},
    optional={
        "exclude": st.lists(st.sampled_from(["purchased", "i07", "i11"]), max_size=2),
        "category": st.sampled_from([{"in": ["D1"]}, {"out": ["D0/S0"]}, {"in": ["none"]}]),
        "brand": st.sampled_from([{"in": ["p"]}, {"in": ["none"]}]),
        "price": st.sampled_from([{"max": 20}, {"min": 30}, {"min": 1000}]),
        "boost": st.lists(
            st.sampled_from(
                [{"category": "D0", "factor": 3}, {"brand": "p", "factor": 0.2},
                 {"item_id": "i30", "factor": 1000}, {"item_id": "new1", "factor": 50}]
            ),
            max_size=3,
        ),
        "cap": st.sampled_from([{"brand": 1}, {"category": 2}, {"brand": 2, "category": 1}]),
        "diversity": st.sampled_from([0.2, 0.8]),
        "explore": st.just({"share": 0.5, "pool": 7}),
        "new_items": st.sampled_from([1, 2]),
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, list[UserContext]]:
    model = small_model.make(tmp_path_factory.mktemp("model"))
    transition = LearnedTransition(model)
    catalogue = Catalogue(client=None)
    for n, item in enumerate(small_model.ITEMS):
        catalogue.entries[item] = Entry(
            item, category=small_model.category(item), brand=("p", "q", "r")[n % 3], price=float(n),
            in_stock=n % 9 != 0,
        )  # fmt: skip
    for n in range(3):
        catalogue.entries[f"new{n}"] = Entry(f"new{n}", category=f"D{n}/S{n}", brand="p", price=5.0)
        catalogue.added_ms[f"new{n}"] = NOW - n * DAY_MS
    states = transition.replay([small_model.HISTORY[:n] for n in (1, 5, 12)])
    made = Recommender(catalogue, Scorer(model), model.vocabulary.items, model.version)
    bought = ["i00", "i07", "i14"]
    return made, [shopper_with(state, interests=(), purchased=bought, seen=()) for state in states]


@pytest.fixture(scope="module")
def asked() -> Iterator[list[int]]:
    """Count what is searched for."""
    counted, best = [0], ScoreQuery.best

    def count(self: ScoreQuery, *given: Any) -> Any:
        counted[0] += 1
        return best(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoreQuery, "best", count)
        yield counted


@given(rules=_rules, n=st.integers(1, 50), who=st.integers(0, 2))
@settings(settings.get_profile("one fixture for all"), max_examples=200)
def test_what_is_searched_is_what_all_scores_give(
    shop: tuple[Recommender, list[UserContext]],
    asked: list[int],
    rules: dict[str, Any],
    n: int,
    who: int,
) -> None:
    made, shoppers = shop
    request = RecommendationRequest(n, rules=Rules.model_validate(rules), seed="s")
    with pytest.MonkeyPatch.context() as patch:
        made.rank(shoppers[who], request, NOW)
        made.settle()  # then both know what is near new items
        expected = made.rank(shoppers[who], request, NOW)
        patch.setattr(recommender, "MANY_ITEMS", 0)
        before = asked[0]
        found = made.rank(shoppers[who], request, NOW)
    known = {each["item_id"] for each in found.items} & set(small_model.ITEMS)
    assert asked[0] > before or not known
    assert (found.relaxed, found.model, found.failed) == (
        expected.relaxed, expected.model, expected.failed,
    )  # fmt: skip
    assert len(found.items) == len(expected.items)
    for one, other in zip(found.items, expected.items, strict=True):
        assert (one["item_id"], one["rank"]) == (other["item_id"], other["rank"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one.get("propensity") == other.get("propensity")


def test_what_stands_near_nothing_comes_last(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "MANY_ITEMS", 0)
    model = small_model.make(tmp_path)
    catalogue = Catalogue(client=None)
    catalogue.entries = {item: Entry(item, category="A") for item in (*small_model.ITEMS, "near")}
    catalogue.entries["far"] = Entry("far", category="Z/z")
    catalogue.added_ms |= {"far": NOW, "near": NOW}
    made = Recommender(catalogue, Scorer(model), model.vocabulary.items, model.version)
    state = LearnedTransition(model).replay([small_model.HISTORY])[0]
    made.rank(shopper_with(state), RecommendationRequest(100), NOW)
    made.settle()
    found = [
        each["item_id"]
        for each in made.rank(shopper_with(state), RecommendationRequest(100), NOW).items
    ]
    assert len(found) == len(small_model.ITEMS) + 2
    assert (found[-1], "near" in found[:-2]) == ("far", True)


def test_a_state_without_events_and_a_search_that_fails_are_answered(
    shop: tuple[Recommender, list[UserContext]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, shoppers = shop
    expected = made.rank(shoppers[1], RecommendationRequest(10), NOW).items

    def broken(*_: Any) -> Any:
        raise ValueError("broken")

    monkeypatch.setattr(recommender, "MANY_ITEMS", 0)
    monkeypatch.setattr(recommender, "retrieve", broken)
    assert made.rank(shoppers[1], RecommendationRequest(10), NOW).items == expected


def test_a_bulk_load_is_laid_out_aside_and_taken_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = list[tuple[Future[Any], Any]]()

    class Later:
        def submit(self, work: Any, *given: Any) -> Future[Any]:
            future = Future[Any]()
            waiting.append((future, lambda: future.set_result(work(*given))))
            return future

    monkeypatch.setattr(assortment, "ASIDE_ITEMS", 3)
    monkeypatch.setattr(assortment, "_aside", Later())
    catalogue = Catalogue(client=None)
    catalogue.entries = {f"i{n}": Entry(f"i{n}", category=f"c{n}", price=1.0) for n in range(5)}
    items = assortment.Assortment(catalogue, ["i1"])
    items.refresh()
    assert items.ids == ["i1", "i0", "i2", "i3", "i4"]

    catalogue.entries = {f"j{n}": Entry(f"j{n}", category=f"d{n}", price=2.0) for n in range(6)}
    catalogue.changes += 1  # in bulk: without an entry in the journal
    items.refresh()
    assert items.ids == ["i1", "i0", "i2", "i3", "i4"]
    catalogue._take("j0", b'{"item_id":"j0","price":9.0}')
    catalogue._take("new", b'{"item_id":"new","price":8.0}')
    items.refresh()  # an edit is seen while the rest is under way
    assert items.price[items.row["new"]] == 8.0
    assert len(waiting) == 1
    waiting[0][1]()
    catalogue._take("j1", None)
    items.refresh()
    assert set(items.ids) >= {"i1", "j0", "j1", "j2", "j3", "j4", "j5", "new"}
    assert items.price[items.row["j0"]] == 9.0
    assert not items.fit[items.row["j1"]]
    named = [items.categories.of[c] for c in items.category[items.rows(["j2", "j5"])]]
    assert named == ["d2", "d5"]
    assert not np.isnan(items.price[items.row["new"]])


def test_many_items_are_sorted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assortment, "ASIDE_ITEMS", 2)
    monkeypatch.setattr(assortment, "_CHUNK", 3)
    items = [f"{n * 7919 % 101:03d}" for n in range(50)] + ["é", "", "z"]
    assert assortment._sort_items(items) == sorted(items)
