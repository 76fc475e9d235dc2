"""The linear score: a sum of shown parts, with weights that are checked configuration."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InvalidSettingError
from feature_repo.profile_views.engagement_score import Term, explain, load, score

values = st.dictionaries(
    st.sampled_from(sorted(load())), st.none() | st.floats(-1e6, 1e6), max_size=8
)


@given(values)
def test_the_score_is_the_sum_of_weight_times_x(features: dict[str, float | None]) -> None:
    parts = explain(features)
    assert score(features) == pytest.approx(sum(p.weight * p.x for p in parts))
    assert {p.feature for p in parts} == {n for n, v in features.items() if v is not None}
    assert all(-1 < p.x < 1 for p in parts)


def test_it_is_linear_in_the_weights() -> None:
    features = {"num_carts_7d": 3, "spend_28d": 50}
    one = {"num_carts_7d": Term(weight=1, half=1), "spend_28d": Term(weight=2, half=50)}
    double = {n: Term(weight=2 * t.weight, half=t.half) for n, t in one.items()}
    assert score(features, one) == pytest.approx(0.75 + 1.0)
    assert score(features, double) == pytest.approx(2 * score(features, one))


def test_missing_and_nan_add_nothing() -> None:
    assert score({}) == 0
    assert explain({"spend_28d": float("nan")}) == []


@pytest.mark.parametrize(
    "text",
    [
        "spend_28d: {weight: heavy, half: 1}", "spend_28d: {weight: 1, half: 0}", "- 1", ":",
        "spend_28d: {weight: .nan, half: 1}", "interest_brands: {weight: 1, half: 1}",
        "shoe_size: {weight: 1, half: 1}", "spend_28d: {weight: 1, half: 1, more: 1}",
    ],
)  # fmt: skip
def test_bad_weights_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "score.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSettingError, match=r"score\.yaml"):
        load(path)
