"""Log files: who writes where, how much, and what a line never holds."""

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from gateway_thread import Api
from waiting import wait_until

from feature_repo.errors import StoreUnavailableError
from services.gateway import profiles
from services.runtime import logs
from services.runtime.log_lines import STDERR_VARIABLE, take_lines
from services.settings import Settings

USER = "tell-tale-4711"


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
        handler.close()


def lines(home: Path, name: str = "gateway-0.log") -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (logs.folder(home) / name).read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyError(USER), 500), (StoreUnavailableError("the store is away"), 503), (None, 504)],
)
def test_the_id_of_every_5xx_is_in_the_log_and_no_users_id(
    make_api: Callable[..., Api],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    status: int,
) -> None:
    api = make_api(wait_ms=20)
    with api.client() as client:
        receipt = client.post_event({"type": "login", "user_id": USER})["receipt"]
        if error is None:
            api.stop_updater()
            receipt = client.post_event({"type": "login", "user_id": USER})["receipt"]
        else:

            def fail(*_: Any) -> None:
                raise error

            monkeypatch.setattr(profiles, "_service", fail)
        answer = client.http.get(f"/v1/users/{USER}/profile?after={receipt}")
    assert answer.status_code == status
    request_id = answer.json()["request_id"]
    wanted = {"route": "/v1/users/{user_id}/profile", "status": status, "request_id": request_id}
    found = list[dict[str, Any]]()

    def told() -> bool:
        found[:] = [one for one in lines(api.settings.home) if one.get("request_id") == request_id]
        return any(wanted.items() <= one.items() for one in found)

    wait_until(told, "the line")  # it is written once the answer has been sent
    if status == 500:
        trace = next(one["trace"] for one in found if "trace" in one)
        assert trace[0] == "KeyError"
        assert "in fail" in trace[-1]
    everything = b"".join(path.read_bytes() for path in logs.folder(api.settings.home).iterdir())
    assert USER.encode() not in everything


def test_a_trace_shows_kinds_and_places_of_the_whole_chain_and_no_message(tmp_path: Path) -> None:
    logs.configure(Settings(home=tmp_path), "gateway")
    try:
        try:
            raise KeyError(USER)
        except KeyError as error:
            raise ValueError(USER) from error
    except ValueError:
        structlog.get_logger("here").exception("failed")
        logging.getLogger("some.library").warning("about %s", USER, exc_info=True)
    ours, theirs = lines(tmp_path)
    assert [line for line in ours["trace"] if "/" not in line] == ["ValueError", "KeyError"]
    assert theirs["trace"] == ours["trace"]
    assert (theirs["event"], theirs["logger"]) == ("library_warning", "some.library")
    assert USER not in (logs.folder(tmp_path) / "gateway-0.log").read_text()


def test_each_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with logs.file_writer(settings, "gateway") as one, logs.file_writer(settings, "gateway") as two:
        one("1")
        two("2")
    with logs.file_writer(settings, "gateway") as again:
        again("3")
    folder = logs.folder(tmp_path)
    assert (folder / "gateway-0.log").read_text() == "1\n3\n"
    assert (folder / "gateway-1.log").read_text() == "2\n"


def test_files_are_private_and_bounded_in_size_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    before = os.umask(0)
    try:
        with logs.file_writer(Settings(home=tmp_path), "proxy") as write:
            for _ in range(100):
                write("x" * 40)
    finally:
        os.umask(before)
    files = sorted(path for path in logs.folder(tmp_path).iterdir() if path.suffix != ".lock")
    assert len(files) == 1 + logs.KEPT
    assert max(path.stat().st_size for path in files) <= 100
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("wanted", [False, True])
def test_lines_go_to_stderr_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    shown = list[str]()
    with take_lines(tmp_path / "socket", shown.append):
        monkeypatch.setenv(STDERR_VARIABLE, str(tmp_path / "socket"))
        logs.configure(Settings(home=tmp_path, log_to_stderr=wanted), "updater")
        structlog.get_logger("here").warning("told", n=1)
    assert [orjson.loads(line)["event"] for line in shown] == ["told"] * wanted
    assert [line["event"] for line in lines(tmp_path, "updater-0.log")] == ["told"]
