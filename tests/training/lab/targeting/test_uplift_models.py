"""Uplift models where the effect is known, and the comparison over Hillstrom's columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.errors import InvalidInputError
from training.evaluation.uplift_metrics import qini
from training.lab.studies import uplift as compared
from training.lab.studies.uplift import Trial, cross_fitted, known_effect, read, trial
from training.lab.targeting.uplift import MODELS, JointHead, UpliftModel

FEATURES = np.random.default_rng(5).normal(size=(12_000, 6))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_known_effect_is_found(name: str) -> None:
    made = known_effect(FEATURES)
    train, test = slice(0, 9000), slice(9000, None)
    model: UpliftModel = MODELS[name]()
    model.fit(made.x[train], made.treated[train], made.outcome[train])
    found = model.effect(made.x[test])
    assert made.effect is not None
    assert np.corrcoef(found, made.effect[test])[0, 1] > 0.4
    assert found.mean() == pytest.approx(made.effect.mean(), abs=0.02)


def test_no_score_beats_the_known_effect() -> None:
    made = known_effect(np.random.default_rng(6).normal(size=(60_000, 6)))
    assert made.effect is not None
    best = qini(made.outcome, made.treated, made.effect)
    # In expectation the curve is the effects' own: Σ of the highest k effects, over N.
    ranked = np.cumsum(np.sort(made.effect)[::-1]) / len(made.effect)
    assert best == pytest.approx(float(ranked.mean() - ranked[-1] / 2), abs=0.002)
    for name in MODELS:
        score = cross_fitted(made, name, [7])
        assert 0 < qini(made.outcome, made.treated, score) < best


def test_where_all_gain_alike_the_joint_head_tells_nobody_apart() -> None:
    generator = np.random.default_rng(1)
    treated = (generator.random(4000) < 0.5).astype(float)
    probability = 0.2 + 0.1 * treated
    outcome = (generator.random(4000) < probability).astype(float)
    x = FEATURES[:4000]
    spread = {name: MODELS[name]().fit(x, treated, outcome).effect(x).std() for name in MODELS}
    assert spread["joint_head"] < 0.6 * spread["two_models"]
    head = JointHead().fit(x, treated, outcome)
    assert head.weights.sum() == pytest.approx(1.0)
    assert head.effect(x).mean() == pytest.approx(0.1, abs=0.03)


def test_folds_hold_out_their_own_users() -> None:
    made = known_effect(FEATURES[:400])
    seen: list[int] = []

    class Spy:
        def fit(self, x: np.ndarray, treated: np.ndarray, outcome: np.ndarray) -> "Spy":
            self.rows = {tuple(row) for row in x}
            return self

        def effect(self, x: np.ndarray) -> np.ndarray:
            seen.append(sum(tuple(row) in self.rows for row in x))
            return x[:, 0]

    whole = dict(MODELS)
    MODELS["spy"] = Spy  # type: ignore[assignment]
    try:
        ranks = cross_fitted(made, "spy", [7, 8])
    finally:
        MODELS.clear()
        MODELS.update(whole)
    assert len(seen) == 10
    assert not any(seen)
    assert 0 < ranks.min() < ranks.max() <= 1


def hillstrom(count: int = 1500) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    segment = generator.choice(["Womens E-Mail", "Mens E-Mail", "No E-Mail"], count)
    womens = generator.integers(0, 2, count)
    visit = generator.random(count) < 0.2 + 0.2 * ((segment == "Womens E-Mail") & (womens > 0))
    return pd.DataFrame(
        {
            "recency": generator.integers(1, 13, count),
            "history": generator.uniform(30, 900, count),
            "mens": 1 - womens,
            "womens": womens,
            "zip_code": generator.choice(["Urban", "Rural", "Surburban"], count),
            "newbie": generator.integers(0, 2, count),
            "channel": generator.choice(["Web", "Phone", "Multichannel"], count),
            "segment": segment,
            "visit": visit.astype(int),
            "conversion": (visit & (generator.random(count) < 0.5)).astype(int),
        }
    )


def test_the_comparison_has_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "ROUNDS", 20)
    hillstrom().to_parquet(tmp_path / "hillstrom.parquet")
    said: list[str] = []
    result = compared.uplift(
        tmp_path, seeds=[7], tell=lambda done, total, what: None, say=said.append
    )
    assert set(result["subsets"]) == {*list(compared.TRIALS)[1:], "known effect"}
    assert set(result["models"]) == {*MODELS, "random"}
    assert result["models"]["two_models"]["qini"] > 0.01
    known = result["subsets"]["known effect"]["models"]
    assert known["oracle"]["qini"] > known["random"]["qini"]
    assert len(said) == 5
    low, high = result["over_best_peer"]["qini"]["ci"]
    assert low <= high


def test_what_is_no_hillstrom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="needs --data"):
        read(None)
    hillstrom().drop(columns="womens").to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InvalidInputError, match="womens"):
        read(tmp_path / "x.parquet")
    with pytest.raises(InvalidInputError, match="both are needed"):
        trial(hillstrom().query("segment != 'No E-Mail'"), "Mens E-Mail", "visit")
    made = trial(hillstrom(), "Mens E-Mail", "visit")
    assert isinstance(made, Trial)
    assert made.x.mean() == pytest.approx(0.0, abs=1e-9)
