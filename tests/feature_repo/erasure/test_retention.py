"""A sweep: events before the bound go, the others stay to the byte; older rejects go."""

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition, write_part
from feature_repo.archive.event_table import SCHEMA
from feature_repo.audiences.denials import read_denying
from feature_repo.erasure.retention import drop_statements, sweep_old
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile.purposes import DEFAULTS
from services.commands.privacy import sweep

USERS = [f"{{p000}}{letter * 26}" for letter in "abc"]
BOUND_MS = 1_000_000


def _event(number: int, user: str, time_ms: int) -> EventRecord:
    return EventRecord(
        id=f"e{number}", type="view_item", user=user, time_ms=time_ms, received_ms=time_ms
    )


MOMENTS = st.integers(BOUND_MS - 3, BOUND_MS + 3)
PARTS = st.lists(st.lists(st.tuples(st.sampled_from(USERS), MOMENTS), min_size=1, max_size=5),
                 min_size=1, max_size=4)  # fmt: skip


@settings(max_examples=10)
@given(PARTS)
def test_what_is_older_goes_and_the_rest_stays(parts: list[list[tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        archive = Archive(home / "archive" / "events")
        for number, drawn in enumerate(parts):
            entries = [(LogPosition.imported(time_ms), _event(10 * number + n, user, time_ms))
                       for n, (user, time_ms) in enumerate(drawn)]  # fmt: skip
            archive.append(f"import-{number}", entries)
        before = list(archive.histories())
        young = {path.name: path.stat().st_ino for path, drawn in zip(archive.parts(), parts,
                 strict=True) if min(time_ms for _, time_ms in drawn) >= BOUND_MS}  # fmt: skip
        old = sum(time_ms < BOUND_MS for drawn in parts for _, time_ms in drawn)
        for expected in (old, 0):
            told = list[tuple[int, int]]()
            removal = sweep_old(home, BOUND_MS, lambda done, total: told.append((done, total)))[0]  # noqa: B023
            assert (removal.found, removal.removed) == (expected, expected)
            assert bool(told) == bool(expected)
        kept = [(u, [e for e in events if e.time_ms >= BOUND_MS]) for u, events in before]
        assert list(archive.histories()) == [(u, events) for u, events in kept if events]
        now = {path.name: path.stat().st_ino for path in archive.parts()}
        assert young.items() <= now.items()
        left = {f"import-{n}.parquet" for n, drawn in enumerate(parts)
                if any(time_ms >= BOUND_MS for _, time_ms in drawn)}  # fmt: skip
        assert now.keys() == left


def test_what_old_events_say_about_consent_stays_without_the_rest(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive" / "events")
    ann, bob, visitor = USERS
    no = {"analytics": False}
    said: dict[str, dict[str, Any]] = {
        "bought": {"user": ann, "type": "login", "query": "secret", "consent": no},
        "plain": {"user": ann, "query": "secret"},
        "left": {"user": bob, "type": "message_unsubscribed", "channel": "email", "url": "secret"},
        "first": {"user": bob, "linked": visitor, "query": "secret"},
        "second": {"user": bob, "linked": visitor},
        "denied": {"user": visitor, "anonymous": True, "consent": no},
        "said": {"user": ann, "type": "consent_updated", "consent": {"ads": True}, "url": "secret"},
        "young": {"user": ann, "query": "kept"},
    }
    entries = []
    for n, (name, told) in enumerate(said.items()):
        user = told.pop("user")
        event = _event(n, user, BOUND_MS + (5 if name == "young" else n - 10))
        event = msgspec.structs.replace(event, id=name, **told)
        entries.append((LogPosition(n + 1, 0), event))
    archive.append("import-1", entries)
    denying = read_denying(tmp_path, "analytics", DEFAULTS)
    assert denying == {ann, bob, visitor}
    for dry_run, expected in ((True, 7), (False, 7), (True, 0), (False, 0)):
        removal = sweep_old(tmp_path, BOUND_MS, dry_run=dry_run)[0]
        assert (removal.found, removal.removed) == (expected, expected)
    events = {e.id: e for _, found in archive.histories() for e in found}
    assert events.keys() == {"bought", "left", "first", "denied", "said", "young"}
    assert events["young"].query == "kept"
    for name in events.keys() - {"young"}:
        assert events[name].type == "consent_updated"
        assert b"secret" not in events[name].encode()
    assert (events["first"].linked, events["denied"].anonymous) == (visitor, True)
    assert events["left"].consent == {"email": False, "marketing_email": False}
    assert not any(b"secret" in path.read_bytes() for path in archive.parts())
    assert read_denying(tmp_path, "analytics", DEFAULTS) == denying
    gone = drop_statements(tmp_path, {ann, visitor}, BOUND_MS)
    assert (gone.found, gone.removed) == (4, 4)
    left = {e.id for _, found in archive.histories() for e in found}
    assert left == {"left", "young"}


def test_rejects_of_earlier_imports_go(tmp_path: Path) -> None:
    old, new = (tmp_path / "rejects" / f"{name}.parquet" for name in ("old", "new"))
    for path in (old, new):
        write_part(path, SCHEMA.empty_table())
    os.utime(old, (10, 10))
    assert [removal.removed for removal in sweep_old(tmp_path, BOUND_MS)] == [0, 1]
    assert (old.exists(), new.exists()) == (False, True)


def test_session_ids_go_before_their_events(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive" / "events")
    events = [_event(n, USERS[0], BOUND_MS + n) for n in range(-1, 4)]
    for event in events:
        event.session_id = f"s{event.id}"
    archive.append("import-1", [(LogPosition.imported(e.time_ms), e) for e in events])
    for dry_run in (True, False):
        removed = sweep_old(
            tmp_path, BOUND_MS, sessions_before_ms=BOUND_MS + 2, dry_run=dry_run
        )  # fmt: skip
        assert [(each.store, each.removed) for each in removed] == [
            ("archive", 1), ("sessions", 2), ("rejects", 0)
        ]  # fmt: skip
        ((_, history),) = archive.histories()
        named = {e.time_ms - BOUND_MS: e.session_id for e in history}
        if dry_run:
            assert len(named) == 5
            assert None not in named.values()
    assert named == {0: None, 1: None, 2: "se2", 3: "se3"}
    read = pq.read_table(archive.parts()[0], columns=["session_id"])["session_id"].to_pylist()
    assert sorted(filter(None, read)) == ["se2", "se3"]


def test_a_dry_run_removes_nothing_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PORTRAIT_RETENTION_DAYS", raising=False)
    archive = Archive(tmp_path / "archive" / "events")
    archive.append("import-1", [(LogPosition.imported(5), _event(1, USERS[0], 5))])
    told = []
    for dry_run, left in ((True, 1), (False, 0)):
        sweep(days=None, dry_run=dry_run, home=tmp_path, json=True)
        assert len(list(archive.histories())) == left
        told.append(orjson.loads(capsys.readouterr().out.splitlines()[-1])["stores"])
    assert told[0][:2] == told[1][:2]
    assert told[0][0] == {"store": "archive", "found": 1, "removed": 1}
