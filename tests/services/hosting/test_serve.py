"""The process of the service: how its failures end."""

from pathlib import Path

import pytest

from services.hosting import serve
from services.runtime import logs
from services.settings import Settings


def test_what_nobody_foresaw_is_one_line_and_where_it_was_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(settings: Settings) -> None:
        logs.configure(settings, "serve")
        raise RuntimeError("a tell-tale")

    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setattr(serve, "serve", fails)
    with pytest.raises(SystemExit) as ended:
        serve.main()
    told = capfd.readouterr()
    assert ended.value.code == 1
    assert "Traceback" not in told.err
    assert told.err.splitlines()[-1] == (
        "portrait: the service failed unexpectedly (RuntimeError); "
        f"the details are below {logs.folder(tmp_path)}"
    )
    logged = "".join(path.read_text() for path in logs.folder(tmp_path).iterdir())
    assert "service_failed" in logged
    assert "tell-tale" not in logged  # what an error says may name people
