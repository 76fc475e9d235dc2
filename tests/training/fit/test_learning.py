"""What a model may learn: all of a predictable shop, nothing of a random one."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.errors import InvalidInputError
from tests.training.conftest import SMALL, fit
from tests.training.shops import Shop, cyclic, end_ms, habits, shop, uniform
from training.fit.loop import Fit
from training.fit.signals import restore_signals
from training.fit.train import train
from training.fit.worker import Alone
from training.history.prepare import prepare
from training.history.prepared import Prepared
from training.network.config import ModelConfig, TrainConfig
from training.network.model_dir import load

CUT_OFF = datetime.fromtimestamp(end_ms() / 1000, UTC)


def test_a_predictable_shop_is_learned(tmp_path: Path) -> None:
    done = fit(tmp_path, shop(cyclic), config=TrainConfig(epochs=12, patience=12, warm_up=10))
    assert done.progress.best > 0.9


def test_a_random_shop_teaches_nothing(tmp_path: Path) -> None:
    done = fit(tmp_path, shop(uniform), config=TrainConfig(epochs=4, warm_up=10))
    expected = float(np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in range(1, 13)]))
    assert done.progress.best == pytest.approx(expected, abs=0.06)


def test_the_same_seed_gives_the_same_loss(tmp_path: Path, histories: Shop) -> None:
    runs = [
        fit(tmp_path / str(n), histories, config=TrainConfig(epochs=2, seed=seed)).progress.epochs
        for n, seed in enumerate((1, 1, 2))
    ]
    losses = [[epoch["loss"] for epoch in run] for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path: Path, histories: Shop) -> None:
    config = TrainConfig(epochs=3, patience=9)
    whole = fit(tmp_path / "whole", histories, config=config)
    fit(tmp_path / "part", histories, config=replace(config, epochs=1))
    second = Fit(tmp_path / "part", SMALL, config, Alone())
    second.run(resume=True)
    assert [e["loss"] for e in second.progress.epochs] == [e["loss"] for e in whole.progress.epochs]
    assert second.progress.best == whole.progress.best


@pytest.mark.parametrize("part", [{"encoder": False}, {"repeat": False}])
def test_parts_can_be_left_out(tmp_path: Path, histories: Shop, part: dict[str, bool]) -> None:
    done = fit(tmp_path, histories, replace(SMALL, **part), TrainConfig(epochs=1))
    assert done.progress.best > 0


def test_nothing_after_the_cut_off_is_read(tmp_path: Path, histories: Shop) -> None:
    cut = end_ms(30)
    early = [(u, [e for e in h if e.time_ms < cut]) for u, h in histories]
    for name, given in (("all", histories), ("early", early)):
        prepare(given, cut_off_ms=cut, support=5).write(tmp_path / name)
    one, other = Prepared.read(tmp_path / "all"), Prepared.read(tmp_path / "early")
    assert one.vocabulary.encode() == other.vocabulary.encode()
    for name, values in one.histories.arrays().items():
        np.testing.assert_array_equal(values, other.histories.arrays()[name])


def test_too_little_history_is_said(histories: Shop) -> None:
    with pytest.raises(InvalidInputError, match="at least 50 baskets"):
        prepare(histories[:1], cut_off_ms=end_ms())


def write_archive(home: Path, histories: Shop) -> None:
    events = sorted((e for _, h in histories for e in h), key=lambda e: e.time_ms)
    Archive(home / "archive" / "events").append(
        "all", [(LogPosition(e.time_ms, n), e) for n, e in enumerate(events)]
    )


COMMAND = """
import sys
from datetime import datetime
from pathlib import Path
from training.network.config import ModelConfig, TrainConfig
from training.fit.train import train
if __name__ == "__main__":
    train(Path(sys.argv[1]), cut_off=datetime.fromisoformat(sys.argv[2]), name="one",
          workers=int(sys.argv[3]), resume="resume" in sys.argv,
          model=ModelConfig(dim=16, hidden=24), config=TrainConfig(epochs=3, patience=9))
"""


def start(home: Path, workers: int, *extra: str) -> "subprocess.Popen[bytes]":
    script = home / "script.py"
    script.write_text(COMMAND)
    return subprocess.Popen(
        [sys.executable, str(script), str(home), CUT_OFF.isoformat(), str(workers), *extra],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_ray_run_resumes_to_the_same_loss(tmp_path: Path, workers: int) -> None:
    """One worker is compared with the loop without Ray, two with an uninterrupted Ray run."""
    histories = shop(habits, users=80)
    for home in (tmp_path / "whole", tmp_path / "killed"):
        write_archive(home, histories)
    process = start(tmp_path / "killed", workers)
    note = tmp_path / "killed" / "models" / ".run-one" / "progress.ndjson"

    def started() -> bool:
        assert process.poll() is None, "training ended before it could be killed"
        return note.exists() and '"done"' in note.read_text()

    wait_until(started, "the first epoch", 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "models" / "one").exists()
    assert start(tmp_path / "killed", workers, "resume").wait(timeout=200) == 0
    if workers == 1:
        train(
            tmp_path / "whole", cut_off=CUT_OFF, name="one", ray=False,
            model=ModelConfig(dim=16, hidden=24), config=TrainConfig(epochs=3, patience=9),
        )  # fmt: skip
    else:
        assert start(tmp_path / "whole", workers).wait(timeout=200) == 0
    losses = [
        [round(e["loss"], 6) for e in load(home / "models" / "one").manifest["metrics"]["epochs"]]
        for home in (tmp_path / "killed", tmp_path / "whole")
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


def test_training_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with restore_signals():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
