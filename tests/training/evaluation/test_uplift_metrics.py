"""Qini and uplift curves: by hand, against a naive reading, and on effects that are known."""

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InvalidInputError
from training.evaluation import uplift_metrics
from training.evaluation.uplift_metrics import auuc, qini, qini_curve, uplift_curve


def test_examples() -> None:
    assert doctest.testmod(uplift_metrics).failed == 0


def test_curves_computed_by_hand() -> None:
    """Six users; of the two highest one is treated and converts, and so on down."""
    outcome = [1, 0, 1, 1, 0, 0]
    treated = [1, 0, 1, 0, 1, 0]
    score = [6, 5, 4, 3, 2, 1]
    found = qini_curve(outcome, treated, score)
    assert found.share.tolist() == [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]
    # Y_t, Y_c, N_t, N_c: (1 0 1 0) (1 0 1 1) (2 0 2 1) (2 1 2 2) (2 1 3 2) (2 1 3 3)
    assert found.gain * 3 == pytest.approx([0, 1, 1, 2, 1, 0.5, 1])
    lift = uplift_curve(outcome, treated, score)
    assert lift.gain * 6 == pytest.approx([0, 1, 2, 3, 2, 5 * (2 / 3 - 1 / 2), 2])
    area = (1 / 2 + 1 + 3 / 2 + 3 / 2 + 3 / 4 + 3 / 4) / 3 / 6
    assert qini(outcome, treated, score) == pytest.approx(area - 1 / 6)


def naive(outcome: Any, treated: Any, score: Any) -> list[tuple[float, float, float]]:
    """Return share, Qini gain and uplift gain at every distinct score, read from the definition."""
    users = list(zip(outcome, treated, score, strict=True))
    all_treated = sum(t for _, t, _ in users)
    found = [(0.0, 0.0, 0.0)]
    for least in sorted({s for _, _, s in users}, reverse=True):
        yes = [y for y, t, s in users if t and s >= least]
        no = [y for y, t, s in users if not t and s >= least]
        share = (len(yes) + len(no)) / len(users)
        lost = sum(no) * len(yes) / len(no) if no else 0.0
        means = (sum(yes) / len(yes) if yes else 0.0) - (sum(no) / len(no) if no else 0.0)
        found.append((share, (sum(yes) - lost) / all_treated, means * share))
    return found


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 6)), min_size=2, max_size=40
    ).filter(lambda users: len({t for _, t, _ in users}) == 2)
)
def test_the_curves_are_what_the_definition_says(users: list[tuple[int, bool, int]]) -> None:
    outcome, treated, score = (list(column) for column in zip(*users, strict=True))
    expected = np.array(naive(outcome, treated, score))
    by_qini, by_lift = qini_curve(outcome, treated, score), uplift_curve(outcome, treated, score)
    assert by_qini.share == pytest.approx(expected[:, 0])
    assert by_qini.gain == pytest.approx(expected[:, 1])
    assert by_lift.gain == pytest.approx(expected[:, 2])
    assert by_qini.gain[-1] == pytest.approx(by_lift.gain[-1])


def test_a_score_that_knows_the_effect_beats_chance_and_its_reverse_loses() -> None:
    rng = np.random.default_rng(3)
    effect = rng.choice([0.0, 0.4], 20_000)
    treated = rng.random(20_000) < 0.5
    outcome = rng.random(20_000) < 0.1 + effect * treated
    assert qini(outcome, treated, effect) > 0.03
    assert qini(outcome, treated, -effect) < -0.03
    assert abs(qini(outcome, treated, rng.random(20_000))) < 0.01
    assert auuc(outcome, treated, effect) > 0.2 / 2 + 0.03


@pytest.mark.parametrize(
    ("outcome", "treated", "score", "words"),
    [
        ([1, 0], [1, 1], [1, 2], "one is missing"),
        ([1, 0], [0, 0], [1, 2], "one is missing"),
        ([1, 0, 1], [1, 0], [1, 2], "shapes"),
        ([1, np.nan], [1, 0], [1, 2], "finite"),
        ([1, 0], [1, 0], [1, np.inf], "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    outcome: Any, treated: Any, score: Any, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        qini(outcome, treated, score)
