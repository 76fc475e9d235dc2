"""The proof by fire: what it is told, and that what it breaks is caught."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import orjson
import psutil
import pytest
import redis
from typer.testing import CliRunner

from feature_repo.errors import InvalidInputError, PortraitError
from services.commands.cli import app
from services.lab.chaos import guards
from services.lab.chaos.plan import FaultPlan
from services.lab.chaos.result import verdict
from services.lab.chaos.run import chaos


@pytest.mark.parametrize("guard", ["fence", "last-entry", "dedup", "kept-rows"])
def test_a_guard_is_taken_out_of_a_copy(
    guard: guards.Guard, store_client: redis.Redis, tmp_path: Path
) -> None:
    code = guards.without(guard, tmp_path)
    assert not list(tmp_path.rglob("__pycache__"))
    name = next(iter(guards._LINES[guard]))
    store_client.script_flush()
    assert not guards.runs(store_client, guard, code)
    store_client.script_load((code / name).read_text())  # it is still Lua
    assert guards.runs(store_client, guard, code)
    store_client.script_load((Path(guards.__file__).parents[3] / name).read_text())
    assert not guards.runs(store_client, guard, code)


def test_a_guard_that_is_not_found_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {"services/event_log/append.lua": ("no such line",)}
    monkeypatch.setitem(guards._LINES, "dedup", lines)
    with pytest.raises(PortraitError, match="does not hold the guard 'dedup' exactly once"):
        guards.without("dedup", tmp_path)


def test_power_cuts_and_durability_always_exclude_each_other() -> None:
    with pytest.raises(InvalidInputError, match="use --durability everysec"):
        FaultPlan(power_cuts=True, durability="always")
    arguments = ["chaos", "--break", "last-entry", "--durability", "always"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("portrait: a power cut takes")
    assert result.stderr.count("\n") == 1


def test_a_model_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["chaos", "--model", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"portrait: {tmp_path} is no model directory")


@pytest.mark.slow
@pytest.mark.parametrize("store_kills", [False, True])
def test_nothing_is_lost_doubled_or_wrong(store_kills: bool) -> None:
    """With kills of the store only ``always`` promises that: see docs/reliability.md."""
    durability: Literal["everysec", "always"] = "always" if store_kills else "everysec"
    result = chaos(FaultPlan(seconds=40, seed=11, store_kills=store_kills, durability=durability))
    assert verdict(result) is None, result
    assert result["kills"]["updater"] + result["kills"]["gateway"] >= 1
    assert bool(result["kills"]["store"]) == store_kills
    assert min(result["acknowledged"], result["resends"], result["deliberate_repeats"]) > 0
    assert result["events_in_log"] == result["acknowledged"]
    assert "break" not in result


@pytest.mark.slow
def test_after_power_cuts_rows_and_order_are_right() -> None:
    result = chaos(FaultPlan(seconds=40, seed=12, power_cuts=True))
    assert verdict(result) is None, result
    assert result["power_cuts"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "finding"),
    [("fence", "wrong"), ("last-entry", "wrong"), ("dedup", "doubled"), ("kept-rows", "wrong")],
)
def test_a_missing_guard_is_caught(guard: guards.Guard, finding: str) -> None:
    result = chaos(FaultPlan(seconds=60, seed=13, guard=guard))
    assert result["caught"] is True
    assert result["break"] == guard
    assert result[finding] > 0, result


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("portrait")), "chaos", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "kills" in line and not line.rstrip().endswith(" 0 kills"):
                break
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (output, errors.splitlines()[-1].partition(":")[0]) == ("", "portrait")
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_result_is_the_last_line() -> None:
    command = [str(Path(sys.executable).with_name("portrait")), "chaos", "--seconds", "8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = orjson.loads(done.stdout.splitlines()[-1])
    assert result["acknowledged"] > 0
