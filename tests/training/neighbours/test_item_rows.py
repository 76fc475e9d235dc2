"""Item-item rows against what they are defined by."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.training.shops import Shop, habits, shop
from training.history.sequences import Histories, encode
from training.history.vocabulary import Vocabulary, build_vocabulary
from training.neighbours import item_rows


@pytest.fixture(scope="module")
def encoded() -> tuple[Vocabulary, Histories]:
    made: Shop = shop(habits, users=30, events=15)
    vocabulary = build_vocabulary(made, until_ms=2**53, support=1)
    return vocabulary, encode(made, vocabulary)


def some(users: int = 40, items: int = 9) -> sp.csr_matrix:
    return sp.csr_matrix((np.random.default_rng(1).random((users, items)) < 0.3).astype(np.float32))


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    x, ridge = some(), 3.0
    rows, dense = item_rows.ease(x, ridge), x.toarray()
    for j in range(dense.shape[1]):
        others = [i for i in range(dense.shape[1]) if i != j]
        left = dense[:, others].T @ dense[:, others] + ridge * np.eye(len(others))
        expected = np.linalg.solve(left, dense[:, others].T @ dense[:, j])
        np.testing.assert_allclose(rows[others, j], expected, atol=1e-5)
        assert rows[j, j] == 0


def test_with_all_items_near_the_neighbour_ridge_is_ease() -> None:
    x = some()
    found = item_rows.neighbour_ridge(x, 3.0, neighbours=100).toarray()
    np.testing.assert_allclose(found, item_rows.ease(x, 3.0), atol=1e-5)


def test_cosine_of_two_items() -> None:
    x = sp.csr_matrix(np.array([[1, 1], [1, 0], [1, 1], [0, 1]], np.float32))
    assert item_rows.cosine(x, 1.0).toarray()[0, 1] == pytest.approx(2 / (3 + 1))


def test_transitions_count_what_came_after(encoded: tuple[Vocabulary, Histories]) -> None:
    vocabulary, histories = encoded
    items = len(vocabulary.items)
    found = item_rows.transitions(
        histories, np.ones(len(histories.time_ms), bool), items, distance=3
    ).toarray()
    naive = np.zeros((items, items))
    for user in range(len(histories.users)):
        events = range(histories.starts[user], histories.starts[user + 1])
        baskets = [histories.item[histories.lines[e] : histories.lines[e + 1]] - 1 for e in events]
        for a in range(len(baskets)):
            for b in range(a + 1, min(len(baskets), a + 4)):
                for i in baskets[a]:
                    for j in baskets[b]:
                        naive[i, j] += 1 / (b - a)
    naive /= naive.sum(axis=1, keepdims=True) + 5
    np.testing.assert_allclose(found, naive, atol=1e-5)


def test_top_keeps_the_largest() -> None:
    kept = item_rows.top(sp.csr_matrix(np.array([[1.0, -5.0, 3.0], [0.0, 0.0, 2.0]])), 2)
    assert kept.toarray().tolist() == [[0, -5, 3], [0, 0, 2]]


@pytest.mark.parametrize("neighbours", [2, 30])
def test_a_neighbour_ridge_solves_each_item_on_its_neighbours(neighbours: int) -> None:
    """With few neighbours entries are looked up in long rows, with many the rows are read."""
    generator = np.random.default_rng(0)
    x = sp.csr_matrix((generator.random((80, 60)) < 0.3).astype(np.float32))
    found = item_rows.neighbour_ridge(x, 3.0, neighbours=neighbours).toarray()
    gram = (x.T @ x).toarray().astype(np.float64)
    near = item_rows.top(item_rows.cosine(x, 10.0).T.tocsr(), neighbours)
    for item in range(60):
        chosen = near.indices[near.indptr[item] : near.indptr[item + 1]]
        block = gram[np.ix_(chosen, chosen)] + 3.0 * np.eye(len(chosen))
        expected = np.zeros(60)
        expected[chosen] = np.linalg.solve(block, gram[chosen, item])
        np.testing.assert_allclose(found[:, item], expected, atol=1e-5)


def test_rows_of_very_many_items_are_made_from_a_bounded_number_of_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    x = sp.csr_matrix((generator.random((80, 60)) < 0.3).astype(np.float32))
    whole = item_rows.neighbour_ridge(x, 3.0, neighbours=50)
    monkeypatch.setattr(item_rows, "FULL_ITEMS", 10)
    same = item_rows.neighbour_ridge(x, 3.0)
    np.testing.assert_array_equal(same.toarray(), whole.toarray())
    monkeypatch.setattr(item_rows, "MAX_TOGETHER", 2000)
    assert item_rows.neighbour_ridge(x, 3.0).nnz < 2000 < whole.nnz
