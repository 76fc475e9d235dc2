"""A catalogue much larger than the model's vocabulary: the answer is a plain reference's.

The reference goes through all items one by one, by the formulas of the documentation.
"""

import re
from collections.abc import Mapping
from math import log, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest
import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalogue.catalogue import Catalogue, Entry
from services.recommend import title_words
from services.recommend.assortment import Assortment
from services.recommend.content import nearness
from services.recommend.diversify import best
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.recommender import Recommender
from services.recommend.rules import DAY_MS, Rules
from services.recommend.title_words import TitleWords
from services.recommend.user_context import UserContext
from tests.services.recommend.shoppers import shopper_with
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition

NOW = small_model.NOW_MS
WORDS = ("red", "mug", "Tea-pot", "ÉTÉ", "blue_bag", "x")
UNKNOWN = 400


class Shop(NamedTuple):
    catalogue: Catalogue
    recommender: Recommender
    shopper: UserContext
    scores: dict[str, float]


def entry(item: str, n: int) -> Entry:
    return Entry(
        item, category=f"D{n % 3}/S{n % 7}", brand=("p", "q", "r")[n % 3 - 1], price=float(n % 90),
        title=f"{WORDS[n % 6]} {WORDS[n // 6 % 6]}", in_stock=n % 9 != 0,
        available_from=NOW + DAY_MS if n % 11 == 0 else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    model = small_model.make(tmp_path_factory.mktemp("model"))
    catalogue = Catalogue(client=None)
    ids = [*small_model.ITEMS, *(f"u{n}" for n in range(UNKNOWN))]
    catalogue.entries = {item: entry(item, n) for n, item in enumerate(ids)}
    catalogue.added_ms = {f"u{n}": NOW - n * DAY_MS for n in range(0, UNKNOWN, 5)}
    scorer = Scorer(model)
    made = Recommender(catalogue, scorer, model.vocabulary.items, model.version)
    made.set_popular([("u7", 3.0)], [("u7", 2.0), ("i03", 1.5), ("u8", 1.0)])
    state = LearnedTransition(model).replay([small_model.HISTORY])[0]
    interests = [{"kind": "item", "key": item, "weight": 1.0} for item in ("u333", "i05")]
    shopper = shopper_with(
        state, interests=interests, purchased=["i00", "u333"], refused=["u10"], seen=()
    )
    scores = dict(zip(small_model.ITEMS, scorer.scores(state, NOW).tolist(), strict=True))
    return Shop(catalogue, made, shopper, scores)


def near(shop: Shop, entry: Entry) -> dict[str, float]:
    """Return how near each item of the model is."""
    known = {item: shop.catalogue.entries[item] for item in small_model.ITEMS}
    found, whole = dict.fromkeys(known, 0.0), 0.0
    words = dict.fromkeys(re.findall(r"[^\W_]{2,}", (entry.title or "").lower()))
    path = (entry.category or "").split("/")
    terms = [
        *(lambda e, k=k: e.category.split("/")[: k + 1] == path[: k + 1]
          for k in range(len(path))),
        lambda e: e.brand == entry.brand,
        *([lambda e: e.price >= entry.price / sqrt(2) and e.price / sqrt(2) <= entry.price]
          if entry.price else []),
        *(lambda e, word=word: word in re.findall(r"[^\W_]+", e.title.lower()) for word in words),
    ]  # fmt: skip
    for term in terms:
        shared = [item for item, each in known.items() if term(each)]
        idf = log((2 + len(known)) / (1 + len(shared)))
        whole += idf
        for item in shared:
            found[item] += idf
    return {item: value / whole for item, value in found.items()}


def estimate(shop: Shop, item: str) -> float:
    nearest = sorted(near(shop, shop.catalogue.entries[item]).items(), key=lambda p: (-p[1], p[0]))
    weights = {item: value**2 for item, value in nearest[:10] if value > 0}
    if not weights:
        return min(0.0, *shop.scores.values())
    return sum(shop.scores[i] * w for i, w in weights.items()) / sum(weights.values())


def reference(shop: Shop, rules: Mapping[str, Any]) -> dict[str, float]:
    """Return every item that may be answered, and its score."""
    added = shop.catalogue.added_ms
    new = {i for i in added if NOW - added[i] < 30 * DAY_MS}
    new |= {i for i, e in shop.catalogue.entries.items() if e.available_from and i[0] == "u"}
    found = {}
    for item in [*small_model.ITEMS, *sorted(new | {"u7", "u8", "u333"})]:
        each, asked = shop.catalogue.entries[item], rules.get("category", {})
        shelf, price = f"{each.category}/", rules.get("price", {})
        if not (
            each.in_stock
            and (each.available_from or 0) <= NOW
            and item not in {"u10", *rules.get("exclude", ())}
            and not ("purchased" in rules.get("exclude", ()) and item in ("i00", "u333"))
            and any(shelf.startswith(f"{name}/") for name in asked.get("in", [shelf[:-1]]))
            and not any(shelf.startswith(f"{name}/") for name in asked.get("out", []))
            and each.brand in rules.get("brand", {}).get("in", [each.brand])
            and price.get("min", 0) <= each.price <= price.get("max", 1e9)
        ):
            continue
        score = shop.scores[item] if item in shop.scores else estimate(shop, item)
        for boost in rules.get("boost", ()):
            hit = boost.get("item_id") == item or boost.get("brand") == each.brand
            if hit or shelf.startswith(f"{boost.get('category')}/"):
                score += log(boost["factor"])
        found[item] = score
    return found


_rules = st.fixed_dictionaries(
    {"fallback": st.just(False)},
    optional={
        "exclude": st.lists(st.sampled_from(["purchased", "i07", "u0", "u8"]), max_size=2),
        "category": st.sampled_from([{"in": ["D1"]}, {"out": ["D0/S0"]}, {"in": ["D2/S2", "D0"]}]),
        "brand": st.sampled_from([{"in": ["p"]}, {"in": ["q", "r"]}]),
        "price": st.sampled_from([{"max": 20}, {"min": 30}, {"min": 10, "max": 60}]),
        "boost": st.lists(
            st.sampled_from(
                [{"category": "D0", "factor": 3}, {"brand": "p", "factor": 0.2},
                 {"item_id": "u25", "factor": 1000}, {"item_id": "i30", "factor": 50}]
            ),
            max_size=3,
        ),
    },
)  # fmt: skip


@given(rules=_rules, n=st.sampled_from([1, 10, 200]))
@settings(settings.get_profile("one fixture for all"), max_examples=60)
def test_the_answer_is_that_of_going_through_all_items(
    shop: Shop, rules: dict[str, Any], n: int
) -> None:
    request = RecommendationRequest(n, rules=Rules.model_validate(rules))
    shop.recommender.rank(shop.shopper, request, NOW)
    shop.recommender.settle()  # what is near unknown items is found aside
    answered = shop.recommender.rank(shop.shopper, request, NOW).items
    expected = reference(shop, rules)
    assert len(answered) == min(n, len(expected))
    scores = [each["score"] for each in answered]
    assert scores == pytest.approx([expected[e["item_id"]] for e in answered], abs=1e-4)
    assert scores == pytest.approx(sorted(expected.values(), reverse=True)[:n], abs=1e-4)


@given(
    scores=st.lists(st.sampled_from([-np.inf, 0.0, 0.5, 1.0, 2.0]), max_size=400),
    n=st.integers(0, 90),
)
def test_the_best_are_those_of_a_stable_sort(scores: list[float], n: int) -> None:
    values = np.array(scores)
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    assert best(values, n).tolist() == [row for row in order if scores[row] > -np.inf][:n]


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 39), st.lists(st.sampled_from(WORDS), max_size=3)), max_size=12
    )
)
def test_words_follow_edits_and_new_titles(edits: list[tuple[int, list[str]]]) -> None:
    titles = np.array(
        [f"{WORDS[n % 6]}, {WORDS[n % 4]}" if n < 20 else "" for n in range(40)], object
    )
    words = TitleWords(titles.copy())
    for row, chosen in edits:
        titles[row] = " ".join(chosen)
        words.change(row, titles[row])
    for word in ("red", "mug", "pot", "été", "bag", "blue", "gone"):
        has = [n for n, t in enumerate(titles) if word in re.findall(r"[^\W_]+", t.lower())]
        assert words.rows(word).tolist() == has


def test_after_many_new_titles_all_are_laid_out_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(title_words, "MOST_CHANGED", 2)
    catalogue = Catalogue(client=None)
    catalogue.entries["a"] = Entry("a", title="red mug")
    catalogue.changes += 1
    items = Assortment(catalogue)
    items.refresh()
    for n in range(4):
        catalogue._take(f"n{n}", b'{"item_id": "n%d", "title": "red bag"}' % n)
        items.refresh()
    assert items.layouts == 2
    assert not items.words.worn
    found = nearness(items, items.row["n3"])()
    assert dict(zip(items.ids, found > 0.5, strict=True)) == {
        "a": False, "n0": True, "n1": True, "n2": True, "n3": True
    }  # fmt: skip
