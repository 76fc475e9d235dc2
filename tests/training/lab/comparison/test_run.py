"""Comparisons by several processes, and such that were stopped: nothing is lost or done twice."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.shops import habits, shop
from training.lab.comparison import run
from training.lab.comparison.datasets import by_time
from training.lab.comparison.result_store import Finished, resume_folder
from training.lab.comparison.run import compare
from training.lab.comparison.shop import Shop
from training.lab.comparison.tuning import OWN

PEERS = ["popularity", "frequency"]


@pytest.fixture(scope="module")
def baskets() -> Shop:
    found = shop(habits, users=50)
    return Shop("habits", found, by_time(found), support=1)


def own(baskets: Shop) -> Finished:
    """Stand in for Portrait's own part, which takes longest."""
    requests = len(baskets.test.event)
    metrics = np.linspace(0, 1, requests * 4).reshape(requests, 4)
    controls = {"portrait_timed": metrics / 2}
    return Finished(metrics, controls, {"tried": 3, "by_seed": [0.5]}, 12.5, "a machine")


def compared(baskets: Shop, kept: Path, jobs: int = 1) -> dict[str, Any]:
    return compare(
        baskets, seeds=[7], budget_s=0.0, models=PEERS, jobs=jobs, resume=kept,
        tell=lambda *_: None, say=lambda _: None,
    )  # fmt: skip


def keep_own(baskets: Shop, kept: Path) -> Path:
    folder = resume_folder(kept, baskets, [7], 0.0)
    own(baskets).save(folder / f"{OWN}.npz")
    return folder


def test_what_is_kept_comes_back(baskets: Shop, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "one.npz"
    assert Finished.load(path) is None
    given = own(baskets)
    given.save(path)
    found = Finished.load(path)
    assert found is not None
    np.testing.assert_array_equal(found.metrics, given.metrics)
    np.testing.assert_array_equal(found.controls["portrait_timed"], given.metrics / 2)
    assert (found.tuning, found.seconds, found.machine) == (
        given.tuning, given.seconds, given.machine,
    )  # fmt: skip
    assert list(path.parent.iterdir()) == [path]


def test_several_processes_find_what_one_does(baskets: Shop, tmp_path: Path) -> None:
    for jobs in (1, 2):
        keep_own(baskets, tmp_path / str(jobs))
    one, two = (compared(baskets, tmp_path / str(jobs), jobs) for jobs in (1, 2))
    assert set(one["models"]) == {OWN, "portrait_timed", *PEERS}
    assert one["models"] == two["models"]
    assert list(one["models"]) == list(two["models"])
    assert one["over_best_peer"] == two["over_best_peer"]


def test_a_finished_model_is_not_run_again(
    baskets: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep_own(baskets, tmp_path)
    ran = list[str]()
    real = run.one

    def counted(shop: Shop, name: str, **given: Any) -> Finished:
        ran.append(name)
        return real(shop, name, **given)

    monkeypatch.setattr(run, "one", counted)
    first = compared(baskets, tmp_path)
    (folder / "frequency.npz").unlink()
    again = compared(baskets, tmp_path)
    assert ran == [*PEERS, "frequency"]
    assert first["models"] == again["models"]
    assert first["machines"][OWN] == "a machine"


def test_what_is_kept_says_whose_request_each_row_is(baskets: Shop, tmp_path: Path) -> None:
    folder = keep_own(baskets, tmp_path)
    result = compared(baskets, tmp_path)
    histories = baskets.histories
    with np.load(folder / "requests.npz") as kept, np.load(folder / "frequency.npz") as peer:
        for row, event in enumerate(baskets.test.event):
            user = histories.users.index(str(kept["user_id"][row]))
            assert event == histories.starts[user] + kept["request"][row]
            assert kept["time_ms"][row] == histories.time_ms[event]
        assert len(kept["user"]) == len(peer["metrics"]) == len(baskets.test.event)
        assert list(kept["user"]) == list(baskets.test.user)
        mean = float(np.nanmean(peer["metrics"][:, 0]))
    assert result["models"]["frequency"]["ndcg@10"] == pytest.approx(mean)


def test_a_peer_that_is_told_the_time_stands_beside_portrait_that_is_told_too(
    baskets: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = own(baskets).metrics
    best = Finished(metrics + 1.0, {}, {"tried": 1, "by_seed": [1.0]}, 1.0, "a machine")
    folder = keep_own(baskets, tmp_path)
    best.save(folder / "gbdt_timed.npz")
    monkeypatch.setattr(sys.modules[__name__], "PEERS", ["frequency", "gbdt_timed"])
    result = compared(baskets, tmp_path)
    assert result["over_best_peer"]["mrr"]["peer"] == "frequency"
    timed = result["over_best_peer_timed"]["mrr"]
    assert timed["peer"] == "gbdt_timed"
    assert timed["ratio"] == pytest.approx(0.5 / 2 / 1.5, rel=0.01)


def test_other_data_seeds_or_budget_are_kept_apart(baskets: Shop, tmp_path: Path) -> None:
    other = shop(habits, users=51)
    places = {
        resume_folder(tmp_path, baskets, [7], 60.0),
        resume_folder(tmp_path, baskets, [7, 8], 60.0),
        resume_folder(tmp_path, baskets, [7], 61.0),
        resume_folder(tmp_path, Shop("habits", other, by_time(other), support=1), [7], 60.0),
    }
    assert len(places) == 4
    assert resume_folder(tmp_path, baskets, [7], 60.0) in places
