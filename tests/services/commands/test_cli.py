"""The command line: help for everything, one-line errors, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from services.commands.application import moment
from services.commands.cli import app
from services.settings import Settings

PORTRAIT = [sys.executable, "-c", "from services.commands.cli import main; main()"]
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def portrait(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PORTRAIT_")}
    return subprocess.run(
        [*PORTRAIT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**inherited, "PORTRAIT_HOME": str(home), "COLUMNS": "200", **env},
        cwd=home,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert f"portrait {name}" in command.help


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = portrait("import", "nowhere", home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("portrait: ")
    assert "nowhere" in last


def test_bad_setting_names_variable_and_bound(tmp_path: Path) -> None:
    done = portrait("key", "1", home=tmp_path, PORTRAIT_PORT="99999")
    assert done.returncode == 2
    assert "PORTRAIT_PORT:" in done.stderr
    assert "65535" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["serve"], "currency", "euro"),
        (["serve"], "exchange_rates", '{"USD": -1}'),
        (["key", "1"], "durability", "never"),
    ],
)
def test_a_setting_without_an_option_is_named_by_its_variable_alone(
    arguments: list[str], name: str, value: str, tmp_path: Path
) -> None:
    done = portrait(*arguments, home=tmp_path, **{f"PORTRAIT_{name.upper()}": value})
    assert done.returncode == 2
    assert f"PORTRAIT_{name.upper()}:" in done.stderr
    assert "--" not in done.stderr


def test_a_setting_with_an_option_names_both(tmp_path: Path) -> None:
    done = portrait("serve", "--port", "99999", home=tmp_path)
    assert done.returncode == 2
    assert "PORTRAIT_PORT or --port:" in done.stderr


@pytest.mark.parametrize("arguments", [["serve"], ["import", "file", "a.csv", "--mapping", "m"]])
def test_another_currency_than_the_homes_is_refused(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "currency").write_text("EUR\n")
    done = portrait(*arguments, home=tmp_path, PORTRAIT_CURRENCY="USD")
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, last[:10]) == (2, "portrait: ")
    for word in ("PORTRAIT_CURRENCY is USD", "are in EUR", "PORTRAIT_CURRENCY=EUR", "RATES"):
        assert word in last


def test_wrong_option_exits_2(tmp_path: Path) -> None:
    done = portrait("key", "--no-such", home=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_empty_archive_says_what_to_run(tmp_path: Path) -> None:
    done = portrait("train", home=tmp_path)
    assert done.returncode == 2
    assert "portrait import" in done.stderr


def test_key_is_stable_and_private(tmp_path: Path) -> None:
    first = portrait("key", "123", home=tmp_path).stdout.strip()
    assert len(first) == 32
    assert first == portrait("key", "123", home=tmp_path).stdout.strip()
    assert first != portrait("key", "123", home=tmp_path / "other").stdout.strip()
    assert (tmp_path / "tenant.json").stat().st_mode & 0o077 == 0


def test_doctor_names_the_mend(tmp_path: Path) -> None:
    well = portrait("doctor", home=tmp_path)
    assert well.returncode == 0, well.stdout
    ill = portrait("doctor", home=tmp_path, PORTRAIT_REDIS_URL="redis://127.0.0.1:1/0")
    assert ill.returncode == 1
    assert "unset PORTRAIT_REDIS_URL" in ill.stdout


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), SystemExit(1), RuntimeError("Query interrupted")], ids=repr
)
def test_a_stop_is_one_line_and_exit_code_130(
    stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(settings: Settings) -> None:
        raise stop

    monkeypatch.setattr("services.commands.doctor.examine", stopped)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 130
    assert result.stderr.startswith("portrait: stopped")


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("services.commands.doctor.examine", broken)
    result = CliRunner().invoke(app, ["doctor"])
    assert isinstance(result.exception, RuntimeError)


def test_moment_takes_days_and_offsets() -> None:
    assert moment("2017-12-18").isoformat() == "2017-12-18T00:00:00+00:00"
    assert moment("2017-12-18T06:00:00+02:00").utcoffset() is not None
