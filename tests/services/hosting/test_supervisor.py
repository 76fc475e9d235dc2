"""The parent that starts the service again when it is lost, with a stand-in for the service."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from services.hosting import supervisor
from services.hosting.supervisor import LOST, WAITS_S, supervise
from services.runtime import logs
from services.settings import Settings

TOLD_TO_END = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"


class Starts:
    """Starts stand-ins that end as they are told, in turn; the last over and over."""

    def __init__(self, *endings: int | str) -> None:
        self.endings = list(endings)
        self.count = 0

    @contextmanager
    def started(self, settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
        ending = self.endings.pop(0) if len(self.endings) > 1 else self.endings[0]
        code = f"import sys; sys.exit({ending})"
        if isinstance(ending, str):
            code = ending
        elif ending < 0:
            code = f"import os; os.kill(os.getpid(), {-ending})"
        self.count += 1
        with subprocess.Popen([sys.executable, "-S", "-c", code]) as process:
            yield process
            process.kill()


def outcome(patch: pytest.MonkeyPatch, home: Path, *endings: int | str) -> tuple[int, Starts]:
    starts = Starts(*endings)
    patch.setattr(supervisor.child, "run_service", starts.started)
    patch.setattr(supervisor, "WAITS_S", tuple(wait_s / 1000 for wait_s in WAITS_S))
    settings = Settings(home=home)
    logs.configure(settings, "supervisor")
    return supervise(settings), starts


@pytest.mark.parametrize("lost", [LOST, 1, 130, -signal.SIGKILL, -signal.SIGABRT])
def test_a_lost_service_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: int
) -> None:
    code, starts = outcome(monkeypatch, tmp_path, LOST, lost, TOLD_TO_END)
    assert code == 0
    assert starts.count == 3
    found = [orjson.loads(x) for x in (logs.folder(tmp_path) / "supervisor-0.log").open()]
    assert [(one["event"], one["exit_code"]) for one in found] == [
        ("service_lost", LOST), ("service_lost", lost),
    ]  # fmt: skip


def test_after_a_bounded_number_of_starts_it_gives_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, starts = outcome(monkeypatch, tmp_path, LOST)
    assert code == LOST
    assert starts.count == 1 + len(WAITS_S)
    assert "giving up" in capfd.readouterr().err


@pytest.mark.parametrize("code", [1, 2])
def test_a_start_that_is_refused_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    found, starts = outcome(monkeypatch, tmp_path, code)
    assert found == code
    assert starts.count == 1


def test_a_service_that_was_long_up_has_all_its_starts_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "STEADY_S", 0.0)
    code, starts = outcome(monkeypatch, tmp_path, *[LOST] * (3 * len(WAITS_S)), TOLD_TO_END)
    assert code == 0
    assert starts.count == 3 * len(WAITS_S) + 1
