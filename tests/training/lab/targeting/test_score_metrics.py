"""Measures against scikit-learn's, weights as repeated rows, and groups by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from training.lab.targeting.score_metrics import (
    Judged,
    grouped_auc,
    over,
    summary,
    weighted_ap,
    weighted_auc,
    weighted_lift,
)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_auc_and_ap_are_scikit_learns(seed: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    label = np.append((generator.random(30) < 0.3).astype(float), [0.0, 1.0])
    score = generator.integers(0, 6, 32).astype(float) if ties else generator.random(32)
    weight = np.vstack([np.ones(32), generator.integers(0, 3, 32)]).astype(float)
    weight[1, -2:] = 1.0
    found = weighted_auc(label, score, weight)
    for row in range(2):
        expected = roc_auc_score(label, score, sample_weight=weight[row])
        assert found[row] == pytest.approx(expected)
        if not ties:
            expected = average_precision_score(label, score, sample_weight=weight[row])
            assert weighted_ap(label, score, weight)[row] == pytest.approx(expected)


def test_a_weight_is_a_repeated_row() -> None:
    generator = np.random.default_rng(0)
    label, score = (generator.random(40) < 0.3).astype(float), generator.random(40)
    times = generator.integers(0, 4, 40)
    again = np.repeat(np.arange(40), times)
    ones = np.ones((1, len(again)))
    for measure in (weighted_auc, weighted_lift):
        whole = measure(label[again], score[again], ones)
        assert measure(label, score, times[None].astype(float)) == pytest.approx(whole)


def test_one_label_has_no_measure() -> None:
    assert np.isnan(weighted_auc(np.ones(3), np.arange(3.0), np.ones((1, 3)))[0])


def test_groups_count_by_their_positives() -> None:
    label = np.array([1, 0, 1, 1, 0, 0], float)
    score = np.array([2, 1, 9, 1, 5, 0], float)
    group = np.array([1, 1, 2, 2, 2, 3])
    # Group 1: AUC 1 with one positive; group 2: .5 with two; group 3 has none.
    assert grouped_auc(label, score, group) == pytest.approx((1 + 2 * 0.5) / 3)
    found = Judged(label, np.arange(6), group).measures(score, rounds=20)
    assert found["auc"][0] == pytest.approx((1 + 2 * 0.5) / 3)


def test_a_better_score_is_told_from_a_worse_and_not_from_itself() -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(size=600)
    label = (generator.random(600) < 1 / (1 + np.exp(-2 * truth))).astype(float)
    judged = Judged(label, np.arange(600), np.zeros(600, np.int64))
    scores = {"own": truth, "noisy": truth + generator.normal(size=600), "same": truth * 3}
    found = {name: judged.measures(score, rounds=200) for name, score in scores.items()}
    assert over(found, "own", ["noisy"], "auc")["ci"][0] > 0
    assert over(found, "own", ["same"], "auc")["ci"] == [0.0, 0.0]
    row = summary(found["own"])
    low, high = row["ci"]["auc"]
    assert low < row["auc"] < high
