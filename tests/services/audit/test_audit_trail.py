"""The trail: every change of it shows, and no end of its writer loses or breaks anything."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from services.audit.chain import BEGINNING, ChainEnd, read_waiting, seal
from services.audit.pages import AuditQuestion, read_page
from services.audit.trail import Trail, TrailCheck, read_lines
from services.audit.writer import HEAD, LOG, TrailWriter

DAYS = ("2026-01-01", "2026-01-02", "2026-01-04")


def write(folder: Path, per_day: int = 4) -> tuple[Trail, str]:
    """Write three days and return the trail and its last digest."""
    trail, digest = Trail(folder), BEGINNING
    for day in DAYS:
        lines = []
        for n in range(per_day):
            entry = {"id": f"{day}-{n}", "at": f"{day}T00:00:0{n}.000Z", "key": f"{n % 2:012d}"}
            line, digest = seal(entry, digest)
            lines.append(line)
        trail.append(lines, day)
    return trail, digest


def check(trail: Trail, end: str | bytes | None, waiting: Any = ()) -> TrailCheck:
    known = ChainEnd(end) if isinstance(end, str) else None if end is None else ChainEnd.decode(end)
    return trail.check(known, read_waiting(waiting), trail.sizes())


def test_what_was_written_is_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    trail, digest = write(tmp_path)
    assert (check(trail, digest).lines, check(trail, digest).broken) == (12, None)
    assert {path.stat().st_mode & 0o777 for path in trail.files()} == {0o600}
    assert trail.folder.stat().st_mode & 0o777 == 0o700
    assert trail.find_tail(None, {}).end.digest == digest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trail, str, dict[Path, bytes]]:
    trail, digest = write(tmp_path_factory.mktemp("trail"))
    return trail, digest, {path: path.read_bytes() for path in trail.files()}


@given(st.integers(0, 11), st.integers(0, 400), st.binary(min_size=1, max_size=1))
def test_a_changed_byte_is_found_in_its_line(whole: Any, n: int, place: int, byte: bytes) -> None:
    trail, digest, bodies = whole
    path = list(bodies)[n // 4]
    lines = bodies[path].split(b"\n")
    line = lines[n % 4]
    place %= len(line)
    if line[place : place + 1] == byte or byte == b"\n":
        return
    lines[n % 4] = line[:place] + byte + line[place + 1 :]
    path.write_bytes(b"\n".join(lines))
    try:
        told = check(trail, digest).broken
    finally:
        path.write_bytes(bodies[path])
    assert told is not None
    assert told.startswith(f"{path.name}, line {n % 4 + 1}:")


@given(st.integers(0, 11), st.integers(0, 11))
def test_removed_and_swapped_lines_are_found(whole: Any, one: int, other: int) -> None:
    trail, digest, bodies = whole
    lines = [line for body in bodies.values() for line in body.splitlines(keepends=True)]
    names = [f"{path.name}, line {n + 1}" for path in bodies for n in range(4)]
    first = min(one, other)
    if one == other:  # remove it: the next one is the first that does not fit
        lines[one] = b""
        expected = names[one] if one % 4 < 3 else None if one == 11 else f"{names[one + 1]}"
    else:
        lines[one], lines[other] = lines[other], lines[one]
        expected = names[first]
    for number, path in enumerate(bodies):
        path.write_bytes(b"".join(lines[number * 4 : number * 4 + 4]))
    try:
        told = check(trail, digest).broken
    finally:
        for path, body in bodies.items():
            path.write_bytes(body)
    assert told is not None
    assert told.startswith("the end" if expected is None else expected)


def test_a_missing_day_and_a_cut_end_are_found(tmp_path: Path) -> None:
    trail, digest = write(tmp_path)
    last = trail.files()[-1]
    last.unlink()
    assert "the end" in str(check(trail, digest).broken)
    assert check(trail, None).broken is None  # nobody knew of it
    trail.files()[0].unlink()
    assert "2026-01-02.jsonl, line 1" in str(check(trail, None).broken)


def test_old_days_go_and_what_is_left_begins_where_they_ended(tmp_path: Path) -> None:
    trail, digest = write(tmp_path)
    trail.drop_before(trail.find_start("2026-01-02", trail.read_start()))
    assert [path.stem for path in trail.files()] == ["2026-01-02", "2026-01-04"]
    assert (check(trail, digest).lines, check(trail, digest).broken) == (8, None)
    trail.drop_before(
        trail.find_start("2027-01-01", trail.read_start())
    )  # the last day stays: the chain goes on from it
    assert [path.stem for path in trail.files()] == ["2026-01-04"]
    assert check(trail, digest).broken is None
    body = trail.files()[0].read_bytes()
    trail.files()[0].write_bytes(body[body.index(b"\n") + 1 :])
    assert "2026-01-04.jsonl, line 1" in str(check(trail, digest).broken)


def test_pages_hold_each_entry_once_and_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail, _ = write(tmp_path)
    monkeypatch.setattr("services.audit.pages.MOST_LINES", 3)

    def ids(**asked: Any) -> list[str]:
        found, cursor = [], None
        while True:
            page = read_page(trail, AuditQuestion(**asked), cursor)
            found += [each["id"] for each in page["entries"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    every = [f"{day}-{n}" for day in DAYS for n in range(4)]
    assert ids(limit=1) == ids(limit=1000) == every
    assert ids(key="000000000001") == [each for each in every if each[-1] in "13"]
    assert ids(since="2026-01-01T00:00:03.000Z", until="2026-01-04T00:00:01.000Z") == every[3:9]


# --- the writer


def fill(store: Any, groups: int, start: int = 0) -> list[str]:
    """Put groups of three entries into the stream; return their request ids."""
    names = [[f"r{g}.{n}" for n in range(3)] for g in range(start, start + groups)]
    for group in names:
        store.xadd(LOG, {"entries": orjson.dumps([{"request_id": name} for name in group])})
    return [name for group in names for name in group]


def kept(trail: Trail) -> list[str]:
    lines = [line for path in trail.files() for _, line in read_lines(path)]
    return [orjson.loads(line)["request_id"] for line in lines]


@pytest.mark.parametrize("step", ["append", "set", "xdel"])
def test_whoever_goes_on_after_a_failure_writes_each_entry_once(
    tmp_path: Path, redis_url: str, store_client: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    names = fill(store_client, 30)
    writer = TrailWriter(tmp_path, redis_url, 400)
    assert writer.copy() == 20
    broken = writer._trail if step == "append" else writer._client
    monkeypatch.setattr(broken, step, lambda *_: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        writer.copy()
    writer.close()
    last = Trail(tmp_path).files()[-1]
    last.write_bytes(last.read_bytes() + b'{"request_id":"half')
    other = TrailWriter(tmp_path, redis_url, 400)
    while other.copy():
        pass
    other.close()
    assert kept(Trail(tmp_path)) == names
    assert check(Trail(tmp_path), store_client.get(HEAD)).broken is None
    assert store_client.xlen(LOG) == 0


def test_a_second_writer_waits_until_the_first_is_gone(
    tmp_path: Path, redis_url: str, store_client: Any
) -> None:
    fill(store_client, 1)
    one, other = TrailWriter(tmp_path, redis_url, 400), TrailWriter(tmp_path, redis_url, 400)
    assert (one.copy(), other.copy()) == (1, 0)
    names = fill(store_client, 2, start=1)
    assert other.copy() == 0
    one.close()
    assert other.copy() == 2
    other.close()
    assert kept(Trail(tmp_path))[3:] == names


def forge(trail: Trail, before: str, **fields: Any) -> None:
    line, _ = seal({"id": "9-0.0", "request_id": "forged", **fields}, before)
    trail.append([line], "2026-01-01")


def test_lines_that_a_kill_left_are_whole_and_those_that_others_added_are_not(
    tmp_path: Path, redis_url: str, store_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, trail = fill(store_client, 2), Trail(tmp_path)
    writer = TrailWriter(tmp_path, redis_url, 400)
    assert writer.copy() == 2
    names += fill(store_client, 2, start=2)
    monkeypatch.setattr(writer._client, "set", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        writer.copy()
    writer.close()
    end, waiting = store_client.get(HEAD), store_client.xrange(LOG)
    assert check(trail, end, waiting) == TrailCheck(12, None)
    assert "line 7: the store does not know it" in str(check(trail, end).broken)

    known = ChainEnd.decode(end)
    tail = trail.find_tail(known, read_waiting(waiting))
    forge(trail, tail.end.digest)
    assert "line 13: the store does not know it" in str(check(trail, end, waiting).broken)
    fill(store_client, 1, start=4)
    other = TrailWriter(tmp_path, redis_url, 400)
    while other.copy():
        pass
    other.close()
    assert kept(trail) == [*names, "forged", "r4.0", "r4.1", "r4.2"]
    broken = check(trail, store_client.get(HEAD), store_client.xrange(LOG)).broken
    assert "line 14: it does not follow" in str(broken)  # what came later does not go on from it
    assert ChainEnd.decode(store_client.get(HEAD)).lines == 15


@pytest.mark.parametrize("cut", [0, 2])
def test_a_beginning_that_was_cut_off_and_one_that_went_by_right(
    tmp_path: Path, redis_url: str, store_client: Any, cut: int
) -> None:
    trail, _ = write(tmp_path)
    fill(store_client, 1)
    writer = TrailWriter(tmp_path, redis_url, 100_000)
    assert writer.copy() == 1
    writer._days, writer._next_drop_s = 1, 0.0
    assert writer.copy() == 0
    writer.close()
    end = ChainEnd.decode(store_client.get(HEAD))
    assert (end.lines, end.start) == (15, trail.read_start())
    assert trail.read_start().gone == 12
    assert check(trail, end.encode()) == TrailCheck(3, None)
    (path,) = trail.files()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[cut:]))
    before = orjson.loads(lines[cut])["before"]
    anchor = {"first": path.stem, "before": before, "gone": 12 + cut}
    (trail.folder / "anchor.json").write_bytes(orjson.dumps(anchor))
    assert check(trail, None).broken is None
    broken = check(trail, end.encode()).broken
    assert broken == (
        f"{path.name}, line 1: it does not follow the line before it" if cut else None
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [(b'{"day":"x"}', "'first'"), (b"[]", "object"), (b"{", ""), (b"\xff", ""),
     (b'{"first":"x","before":"y"}', "'first'"), (b'{"first":"","before":1}', "'before'")],
)  # fmt: skip
def test_a_broken_anchor_is_named(tmp_path: Path, body: bytes, told: str) -> None:
    trail, digest = write(tmp_path)
    (trail.folder / "anchor.json").write_bytes(body)
    broken = str(check(trail, digest).broken)
    assert broken.startswith("anchor.json: ")
    assert told in broken


WORK = """
import sys
from pathlib import Path
from services.audit import writer
writer.GROUPS = 1
mine = writer.TrailWriter(Path(sys.argv[1]), sys.argv[2], 400)
while True:
    mine.copy()
"""


def test_killed_writers_lose_nothing_and_break_nothing(
    tmp_path: Path, redis_url: str, store_client: Any
) -> None:
    names = fill(store_client, 600)
    trail = Trail(tmp_path)
    for _ in range(3):
        left = store_client.xlen(LOG)
        process = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path), redis_url])
        try:
            wait_until(lambda left=left: store_client.xlen(LOG) < min(left, 590), "some lines")
        finally:
            process.kill()
            process.wait()
    last = TrailWriter(tmp_path, redis_url, 400)
    while last.copy():
        pass
    last.close()
    assert kept(trail) == names
    assert check(trail, store_client.get(HEAD)).broken is None
