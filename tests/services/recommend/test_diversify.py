"""Choosing the list: caps, unlikeness, new items, exploration; and nothing of it unasked."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.archive.catalogue import pack_vector
from services.catalogue.catalogue import Catalogue, Entry
from services.recommend.assortment import Assortment
from services.recommend.diversify import best, diversify
from services.recommend.explore import explore, probability_of_best
from services.recommend.rules import Explore, Rules

SIZE = 60
NONE = np.zeros(0, np.int64)


def shelf() -> Assortment:
    catalogue = Catalogue(client=None)
    for n in range(SIZE):
        item = f"i{n:02d}"
        brand = None if n % 10 == 0 else f"b{n % 4}"
        catalogue.entries[item] = Entry(item, category=f"c{n % 3}/s{n % 6}/x{n}", brand=brand)
    items = Assortment(catalogue, [f"i{n:02d}" for n in range(SIZE)])
    items.refresh()
    return items


ITEMS = shelf()
_scores = st.lists(st.one_of(st.floats(-5, 5), st.just(-np.inf)), min_size=SIZE, max_size=SIZE).map(
    np.array
)


@given(_scores, st.integers(1, SIZE))
def test_without_demands_the_best_come_in_order(scores: np.ndarray, n: int) -> None:
    chosen = diversify(ITEMS, scores, n, Rules(), None, NONE)
    finite = [row for row in range(SIZE) if np.isfinite(scores[row])]
    assert chosen.tolist() == sorted(finite, key=lambda row: (-scores[row], row))[:n]


@given(_scores, st.integers(1, SIZE), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_caps_hold_and_only_caps_leave_places_empty(
    scores: np.ndarray, n: int, brand: int, category: int, depth: int
) -> None:
    rules = Rules.model_validate({"cap": {"brand": brand, "category": category, "depth": depth}})
    chosen = diversify(ITEMS, scores, n, rules, None, NONE).tolist()
    assert len(set(chosen)) == len(chosen) <= n

    def key(row: int) -> str:
        return "/".join(ITEMS.categories.of[ITEMS.category[row]].split("/")[:depth])

    brands = Counter(int(ITEMS.brand[row]) for row in chosen if ITEMS.brand[row])
    shelves = Counter(key(row) for row in chosen)
    assert max(brands.values(), default=0) <= brand
    assert max(shelves.values(), default=0) <= category
    if len(chosen) < n:  # whatever is left would break a cap
        for row in range(SIZE):
            if np.isfinite(scores[row]) and row not in chosen:
                number = int(ITEMS.brand[row])
                assert (number and brands[number] == brand) or shelves[key(row)] == category


def test_a_cap_looks_beyond_the_pool() -> None:
    catalogue = Catalogue(client=None)
    for n in range(500):
        brand = "big" if n < 450 else f"small{n}"
        catalogue.entries[f"i{n:03d}"] = Entry(f"i{n:03d}", brand=brand)
    items = Assortment(catalogue)
    items.refresh()
    rules = Rules.model_validate({"cap": {"brand": 2}})
    chosen = diversify(items, -np.arange(500.0), 10, rules, None, NONE).tolist()
    assert chosen == [0, 1, *range(450, 458)]


def test_diversity_is_maximal_marginal_relevance() -> None:
    draw = np.random.default_rng(0)
    scores, vectors = draw.normal(size=SIZE), draw.normal(size=(SIZE, 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    strength, chosen = 0.4, list[int]()
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    while len(chosen) < 8:
        value = {
            row: (1 - strength) * relevance[row]
            - strength * max((float(unit[row] @ unit[c]) for c in chosen), default=0.0)
            for row in range(SIZE)
            if row not in chosen
        }
        chosen.append(max(value, key=lambda row: value[row]))
    found = diversify(ITEMS, scores, 8, Rules(diversity=strength), vectors, NONE)
    assert found.tolist() == chosen
    assert found.tolist() != best(scores, 8).tolist()

    def likeness(rows: list[int]) -> float:
        return float(np.mean(unit[rows] @ unit[rows].T))

    more = diversify(ITEMS, scores, 8, Rules(diversity=0.9), vectors, NONE)
    assert likeness(more.tolist()) < likeness(best(scores, 8).tolist())
    by_shelf = diversify(ITEMS, scores, 3, Rules(diversity=0.9), None, NONE)
    assert len({int(ITEMS.category[row]) for row in by_shelf}) == 3


def test_items_that_no_model_knows_are_alike_by_their_vectors() -> None:
    catalogue = Catalogue(client=None)
    ways = {"a": [1, 0], "b": [1, 0.1], "c": [0, 1], "d": None}
    for item, vector in ways.items():
        catalogue.entries[item] = Entry(item, category="one/shelf")
        if vector is not None:
            catalogue.vectors.take({item: pack_vector(vector)})
    items = Assortment(catalogue)
    items.refresh()
    scores = np.array([4.0, 3.9, 3.8, -np.inf])
    found = diversify(items, scores, 2, Rules(diversity=0.5), None, NONE)
    assert [items.ids[row] for row in found] == ["a", "c"]
    known = Assortment(catalogue, ["a", "b", "c"])  # there the model's own vectors count
    known.refresh()
    embeddings = np.array([[1.0, 0], [0, 1], [1, 0]])
    found = diversify(known, scores, 2, Rules(diversity=0.5), embeddings, NONE)
    assert [known.ids[row] for row in found] == ["a", "b"]


def test_new_items_take_the_last_places_until_there_are_enough() -> None:
    scores = -np.arange(float(SIZE))
    scores[50] = -np.inf
    new = np.array([40, 41, 50, 2])
    found = diversify(ITEMS, scores, 5, Rules(new_items=3), None, new).tolist()
    assert found == [0, 1, 2, 40, 41]
    assert diversify(ITEMS, scores, 5, Rules(new_items=1), None, new).tolist() == [0, 1, 2, 3, 4]
    all_new = diversify(ITEMS, scores, 2, Rules(new_items=9), None, new).tolist()
    assert all_new == [2, 40]


def test_propensities_are_the_probabilities_of_what_is_shown() -> None:
    scores, rules = -np.arange(float(SIZE)), Rules(explore=Explore(share=0.5, pool=4))
    chosen = best(scores, 2)
    first, pairs, claimed = Counter[int](), Counter[tuple[int, ...]](), dict[int, set[float]]()
    told = dict[tuple[int, ...], float]()
    rounds = 20_000
    for n in range(rounds):
        rows, propensities = explore(ITEMS, chosen, scores, rules, f"seed {n}")
        shown = tuple(rows.tolist())
        first[shown[0]] += 1
        pairs[shown] += 1
        claimed.setdefault(shown[0], set()).add(round(propensities[0], 9))
        told[shown] = propensities[0] * propensities[1]
    assert claimed == {0: {0.625}, 1: {0.125}, 2: {0.125}, 3: {0.125}}
    for row, probability in ((0, 0.625), (1, 0.125), (2, 0.125), (3, 0.125)):
        assert first[row] / rounds == pytest.approx(probability, abs=0.015)
    assert sum(told.values()) == pytest.approx(1.0)
    for shown, probability in told.items():
        assert pairs[shown] / rounds == pytest.approx(probability, abs=0.015)


def test_propensities_of_thompson_sampling_are_the_probabilities_of_what_is_shown() -> None:
    scores = -0.3 * np.arange(float(SIZE))
    scores[4:] = -np.inf
    rules = Rules(explore=Explore(share=0.8, pool=4, by="thompson", spread=2))
    chosen, shoppers = best(scores, 2), np.array([0.0, 8.0, 0.0, 3.0])
    pairs, told = Counter[tuple[int, ...]](), dict[tuple[int, ...], tuple[float, float]]()

    def known(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return shoppers[rows]

    rounds = 10_000
    for n in range(rounds):
        rows, propensities = explore(ITEMS, chosen, scores, rules, f"seed {n}", known)
        pairs[tuple(rows.tolist())] += 1
        told[tuple(rows.tolist())] = (propensities[0], propensities[1])
    assert sum(one * other for one, other in told.values()) == pytest.approx(1.0, abs=1e-3)
    assert len({round(one, 9) for (row, _), (one, _) in told.items() if row == 2}) == 1
    for shown, (one, other) in told.items():
        assert pairs[shown] / rounds == pytest.approx(one * other, abs=0.02)


def test_less_is_explored_of_what_is_known_better() -> None:
    mean, known = np.zeros(3), np.array([1.0, 1.0, 0.1])
    probabilities = [probability_of_best(mean - [0, 0, 0.5], known, index) for index in range(3)]
    assert probabilities[0] == pytest.approx(probabilities[1])
    assert probabilities[2] < probabilities[0]
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-3)
    assert probability_of_best(np.array([0.0, 30.0]), np.ones(2), 0) == pytest.approx(
        0.0, abs=1e-12
    )


def test_a_draw_follows_from_the_id_and_never_shows_what_is_not_allowed() -> None:
    scores = -np.arange(float(SIZE))
    scores[3:] = -np.inf
    chosen, rules = best(scores, 3), Rules(explore=Explore(share=1.0, pool=50))
    one, again = (explore(ITEMS, chosen, scores, rules, "same") for _ in range(2))
    assert one[0].tolist() == again[0].tolist()
    assert sorted(one[0].tolist()) == [0, 1, 2]
    assert one[1] == pytest.approx([1 / 3, 1 / 2, 1])
    rules = Rules(explore=Explore(share=1.0, pool=50, by="thompson"))
    one, again = (explore(ITEMS, chosen, scores, rules, "same") for _ in range(2))
    assert (one[0].tolist(), one[1]) == (again[0].tolist(), again[1])


@given(st.integers(0, 10_000))
def test_exploration_keeps_the_caps(seed: int) -> None:
    scores = -np.arange(float(SIZE))
    rules = Rules.model_validate(
        {"cap": {"category": 1, "depth": 2}, "explore": {"share": 0.5, "pool": 30}}
    )
    chosen = diversify(ITEMS, scores, 6, rules, None, NONE)
    rows, propensities = explore(ITEMS, chosen, scores, rules, str(seed))
    shelves = {ITEMS.categories.of[ITEMS.category[row]].rpartition("/")[0] for row in rows}
    assert len(shelves) == len(rows) == len(propensities) == 6
