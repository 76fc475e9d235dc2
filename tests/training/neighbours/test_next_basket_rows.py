"""Rows fitted to the next basket, against a plain least squares."""

import numpy as np
import pytest

from tests.training.shops import Shop, cyclic, habits, shop
from training.history.sequences import encode
from training.history.vocabulary import build_vocabulary
from training.neighbours import next_basket_rows


@pytest.mark.parametrize("per_event", [1.0, 0.8])
def test_rows_are_those_of_a_plain_ridge_regression(per_event: float) -> None:
    made: Shop = shop(habits, users=12, events=15)
    vocabulary = build_vocabulary(made, until_ms=2**53, support=1)
    histories, items = encode(made, vocabulary), len(vocabulary.items)
    until = int(np.quantile(histories.time_ms, 0.8))
    given, wanted = list[np.ndarray](), list[np.ndarray]()
    for user in range(len(histories.users)):
        h = np.zeros(items)
        for e in range(histories.starts[user], histories.starts[user + 1]):
            if histories.time_ms[e] >= until:
                break
            basket = np.zeros(items)
            basket[histories.item[histories.lines[e] : histories.lines[e + 1]] - 1] = 1
            if histories.target[e] and h.any():
                given.append(h)
                wanted.append(basket)
            h = np.where(per_event * h >= 0.01, per_event * h, 0) + histories.weight[e] * basket
    x, y, ridge = np.stack(given), np.stack(wanted), 3.0
    # Ridge as ordinary least squares with a row of sqrt(ridge) an item.
    more = np.concatenate([x, np.sqrt(ridge) * np.eye(items)])
    expected = np.linalg.lstsq(more, np.concatenate([y, np.zeros((items, items))]), rcond=None)[0]
    found = next_basket_rows.fit(histories, histories.time_ms < until, items, per_event, ridge)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rows_know_what_comes_after_what() -> None:
    made: Shop = shop(cyclic, users=20, events=30)
    vocabulary = build_vocabulary(made, until_ms=2**53, support=1)
    histories, items = encode(made, vocabulary), len(vocabulary.items)
    rows = next_basket_rows.fit(histories, histories.time_ms < 2**53, items, 0.8, 10.0)
    after = {a: b for h in made for a, b in zip(_firsts(h[1][:-1]), _firsts(h[1][1:]), strict=True)}
    row = {item: n for n, item in enumerate(vocabulary.items)}
    right = [int(rows[row[a]].argmax()) == row[b] for a, b in after.items()]
    assert np.mean(right) > 0.9


def _firsts(history: list) -> list[str]:
    return [event.items[0].item_id for event in history]
