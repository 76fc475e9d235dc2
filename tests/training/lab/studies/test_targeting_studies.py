"""What the comparisons ask, what they judge, and what the page says of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.errors import InvalidInputError
from tests.training.lab.targeting.journeys import journey
from training.lab.comparison.page import keep
from training.lab.studies import coupons
from training.lab.studies.coupons import judge, judgeable
from training.lab.studies.lapse import moments
from training.lab.targeting.block_model import FeatureRows
from training.lab.targeting.profile_block import prepare_home

DAY = pd.Timedelta(days=1)


def test_moments_of_lapse_by_hand() -> None:
    whole = journey()
    found = moments(whole)
    assert set(found["monday"].dt.weekday) == {0}
    for row in found.sample(25, random_state=0).itertuples():
        times = whole.lines.loc[whole.lines["household_id"] == row.household_id].groupby(
            "basket_id"
        )["time"].min()  # fmt: skip
        before, after = times[times < row.monday], times[times >= row.monday]
        assert row.label == int(not (after < row.monday + 28 * DAY).any())
        assert row.recency_days == pytest.approx((row.monday - before.max()) / DAY)
        assert row.recency_days <= 91
        assert row.num_orders == len(before)
        assert row.num_orders_28d == (before >= row.monday - 28 * DAY).sum()
        gaps = before.sort_values().diff().dropna() / DAY
        assert row.mean_gap_days == pytest.approx(gaps.mean() if len(gaps) else 91.0)


def test_later_purchases_change_no_moment_but_its_label() -> None:
    whole = journey()
    monday = pd.Timestamp("2017-06-26")
    early = whole.lines[whole.lines["time"] < monday]
    one, other = (
        each.loc[each["monday"] == monday].drop(columns="label").reset_index(drop=True)
        for each in (moments(whole), moments(replace(whole, lines=early)))
    )
    pd.testing.assert_frame_equal(one, other)


def test_a_campaign_is_judged_after_enough_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = journey()
    monkeypatch.setattr(coupons, "MIN_REDEEMERS", 5)
    first, second = (int(each.redeemed.sum()) for each in whole.campaigns[:2])
    for least, expected in ((first, [2, 3]), (first + second, [3]), (first + second + 1, [])):
        monkeypatch.setattr(coupons, "MIN_LEARNED", least)
        assert [each.number for each in judgeable(whole)] == expected


def judged() -> dict[str, object]:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=800)
    label = (generator.random(800) < 1 / (1 + np.exp(-2 * truth))).astype(float)
    rows = FeatureRows({}, label, np.arange(800), np.repeat([1, 2], 400))
    scores = {
        name: truth + noise * generator.normal(size=800)
        for name, noise in {"portrait": 0.1, "logistic": 1.0, "recency": 3.0}.items()
    }
    return judge(rows, scores, ["recency", "logistic"])


def test_the_own_model_is_held_against_the_best_peer(tmp_path: Path) -> None:
    found = judged()
    over = found["over_best_peer"]["auc"]  # type: ignore[index]
    assert over["peer"] == "logistic"
    assert over["ci"][0] > 0
    whole = {
        "dataset": "one", "study": "coupons", "seeds": [7], "machine": "a machine",
        "split": {"how": "as they came", "test_requests": 800, "test_users": 800},
        **found, "subsets": {"some of them": judged()}, "seconds": {}, "not_run": {},
    }  # fmt: skip
    page = keep(tmp_path / "accuracy", whole).read_text()
    assert "## Who redeems a coupon" in page
    assert page.count("| portrait |") == 2
    assert page.index("| portrait |") < page.index("| logistic |") < page.index("| recency |")
    assert f"auc less logistic: {over['difference']:+.4f}" in page
    assert "some of them" in page


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="no archive"):
        prepare_home(tmp_path, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
