"""Errors at the command line: whatever goes wrong is one line and an exit code, no trace."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from services.commands import cli
from services.commands.application import opened, say
from services.runtime import logs

MAPPING = "source: shop\ndefault_type: view_item\ncolumns: {time: t, user_id: u, item_id: i}\n"
ROWS = "t,u,i\n2020-05-01T10:00:00Z,u1,A\n"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "atexit", SimpleNamespace(register=lambda _: None))
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path / "home"))
    Path("m.yaml").write_text(MAPPING)
    Path("t.csv").write_text(ROWS)
    Path("file").touch()
    before = os.umask(0o077)

    def called(*arguments: str) -> tuple[int, str]:
        opened.clear()
        monkeypatch.setattr("sys.argv", ["portrait", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capfd.readouterr().err

    yield called
    os.umask(before)


def _one_line(err: str) -> str:
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("portrait: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "nowhere"], ["nowhere", "completejourney"]),
        (["import", "retailrocket", "absent.csv"], ["absent.csv"]),
        (["import", "completejourney", "--until", "soon"], ["soon", "2017-12-18"]),
        (["train", "--recipe", "magic", "--cut-off", "2020-01-01"], ["magic", "fused"]),
        (["env"], ["portrait serve", "PORTRAIT_REDIS_URL"]),
        (["key", ""], ["USER_ID", "0 characters", "1 to 128"]),
        (["key", "u" * 129], ["129 characters"]),
        (["compare", "magic"], ["magic", "ml100k", "events"]),
        (["compare", "events"], ["--data"]),
        (["compare", "uplift"], ["--data", "hillstrom.parquet"]),
        (["compare", "coupons", "--data", "/dev/null"], ["/dev/null", "archive"]),
        (["compare", "lapse", "--jobs", "2"], ["--jobs", "lapse"]),
        (["compare", "events", "--data", "absent.parquet"], ["absent.parquet"]),
        (["compare", "ml100k", "--models", "ease,magic"], ["magic", "sasrec"]),
    ],
)
def test_what_cannot_be_meant(run: Run, arguments: list[str], words: list[str]) -> None:
    code, err = run(*arguments)
    line = _one_line(err)
    assert (code, [word for word in words if word not in line]) == (2, []), err


def test_rebuild_makes_no_home(run: Run) -> None:
    code, err = run("rebuild", "--home", "absent")
    assert (code, "absent" in _one_line(err), Path("absent").exists()) == (2, True, False), err


def test_what_is_unknown_in_a_store(
    run: Run, redis_url: str, store_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_REDIS_URL", redis_url)
    assert run("import", "file", "t.csv", "--mapping", "m.yaml")[0] == 0
    code, err = run("dead-letters", "drop", "p016-1-0")
    line = _one_line(err)
    assert (code, "p016-1-0" in line, "16, from 0" in line) == (2, True, True), err
    code, err = run("rebuild", "--user", "u1", "--user", "u2")
    assert (code, "'u2'" in _one_line(err)) == (2, True), err
    left = set(store_client.keys("*"))
    assert left <= {b"portrait:{audit}:log"}  # that somebody tried


@pytest.mark.parametrize(
    "text",
    [
        MAPPING + "time_zone: Europe",
        MAPPING.replace("shop", "2026-13-45"),
        MAPPING + "a: !!int foo",
        MAPPING + "a: !!bool foo",
        MAPPING + "a: !!float foo",
        MAPPING + "a: !!timestamp foo",
        MAPPING + "a: !!int ''",
        "[" * 3_000,
        "? [a]\n: b",
        "- a: *b",
    ],
)
def test_a_mapping_that_is_none(run: Run, text: str) -> None:
    Path("bad.yaml").write_text(text)
    code, err = run("import", "file", "t.csv", "--mapping", "bad.yaml")
    assert (code, "bad.yaml" in _one_line(err)) == (2, True), err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["import", "file", "t.csv", "--mapping", "m.yaml", "--home", "file"], "file"),
        (["import", "file", "t.csv", "--mapping", "m.yaml", "--home", "file/home"], "file"),
        (["key", "1", "--home", "file"], "file"),
        (["audience", "list", "--home", "file"], "file"),
        (["report", "--out", "file"], "file"),
        (["report"], "portrait import"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be(run: Run, arguments: list[str], named: str) -> None:
    if "--out" in arguments:
        assert run("import", "file", "t.csv", "--mapping", "m.yaml")[0] == 0
    code, err = run(*arguments)
    assert (code, named in _one_line(err)) == (2, True), err


@pytest.mark.parametrize("rest", [".", "", "file/rest.ndjson"])
def test_a_rest_that_cannot_be(run: Run, rest: str) -> None:
    import_ = ["import", "file", "t.csv", "--mapping", "m.yaml", "--until", "2020-01-01"]
    code, err = run(*import_, "--rest", rest)
    assert (code, "--rest" in _one_line(err)) == (2, True), err


def test_a_folder_that_cannot_be_entered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("parts/inner").mkdir(parents=True)
    Path("parts/t.csv").write_text(ROWS)
    scan = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    code, err = run("import", "file", "parts", "--mapping", "m.yaml")
    assert (code, "parts/inner" in _one_line(err)) == (2, True), err


def test_a_home_that_cannot_be_entered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    see = Path.exists

    def refused(self: Path, **more: Any) -> bool:
        if self.name == "tenant.json":
            raise PermissionError(13, "Permission denied", str(self))
        return see(self, **more)

    monkeypatch.setattr(Path, "exists", refused)
    code, err = run("import", "file", "t.csv", "--mapping", "m.yaml")
    assert (code, "home/tenant.json" in _one_line(err)) == (2, True), err


def test_a_column_that_stands_twice_is_kept_twice(run: Run) -> None:
    cells = [["2020-05-01T10:00:00Z", "x"], ["u1", None], ["A", "A"], ["1", "2"], ["3", "4"]]
    table = pa.table([pa.array(c) for c in cells], names=["t", "u", "i", "more", "more"])
    pq.write_table(table, "t.parquet")
    code, err = run("import", "file", "t.parquet", "--mapping", "m.yaml", "--keep-raw-rejects")
    assert code == 0, err
    (row,) = pq.read_table("home/rejects/shop-t.parquet").column("row").to_pylist()
    assert '"more":"2","more (5)":"4"' in row


def test_what_nobody_expected_is_a_line_and_a_log(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("someone-by-name")

    monkeypatch.setattr("feature_repo.importers.run", broken)
    code, err = run("import", "file", "t.csv", "--home", "other")
    line = _one_line(err)
    assert code == 1
    assert "import failed unexpectedly (KeyError)" in line
    assert str(logs.folder(Path("other"))) in line
    (log,) = logs.folder(tmp_path / "other").glob("cli-*.log")
    assert "KeyError" in log.read_text()
    assert "someone-by-name" not in err + log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_what_nobody_expected_without_a_place_for_a_log(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError

    monkeypatch.setattr("feature_repo.importers.run", broken)
    Path("shop").mkdir()
    Path("shop/run").write_text("")  # where the log's folder would be
    code, err = run("import", "file", "t.csv", "--home", "shop")
    assert (code, "test_cli_errors.py, line" in _one_line(err)) == (1, True), err


def test_a_terminal_does_nothing_of_what_a_file_says(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_bytes(b"\x1b[2J\x07\xff,b\n1,2\n")
    code, err = run("import", "file", "t.csv", "--mapping", "m.yaml")
    line = _one_line(err)
    assert code == 2
    assert "\\x1b[2J\\x07" in line
    assert line.isprintable()
    say("a\nb\x9bü")
    assert capfd.readouterr().err == "portrait: a\\nb\\x9bü\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8"])
def test_a_mark_of_byte_order_is_no_part_of_a_name(run: Run, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    Path("t.csv").write_bytes((mark + ROWS).encode(encoding))
    Path("m.yaml").write_text(f"{MAPPING}encoding: {encoding}")
    code, err = run("import", "file", "t.csv", "--mapping", "m.yaml")
    assert code == 0, err
