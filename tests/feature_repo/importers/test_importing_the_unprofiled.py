"""An import takes nothing of who denies profiling but what they say about consent."""

from pathlib import Path

import orjson
import pytest

from feature_repo import importers
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile.purposes import SETTING

PEOPLE = ("denies", "grants", "silent")
AT_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("defaults", "taken"), [("{}", {"grants", "silent"}), ('{"profiling": false}', {"grants"})]
)
def test_history_of_who_denies_profiling_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defaults: str, taken: set[str]
) -> None:
    monkeypatch.setenv(SETTING, defaults)
    home, file = tmp_path / "home", tmp_path / "events.ndjson"
    pseudonyms = Pseudonyms.load(home)
    names = {pseudonyms.of_user(who): who for who in PEOPLE}
    said = [
        (LogPosition(AT_MS + n, 0), EventRecord(
            id=f"c{n}", type="consent_updated", user=pseudonyms.of_user(who), time_ms=AT_MS,
            received_ms=AT_MS, consent={"profiling": who == "grants"},
        ))
        for n, who in enumerate(("denies", "grants"))
    ]  # fmt: skip
    Archive(home / "archive" / "events").append("log", said)
    lines = [
        {"id": f"{who}-{kind}", "type": kind, "user_id": who, "time": AT_MS - 9_000,
         "items": [{"item_id": "A"}], **more}
        for who in PEOPLE
        for kind, more in (("view_item", {}), ("login", {"consent": {"ads": True}}))
    ]  # fmt: skip
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    report = importers.run("file", home=home, path=file)
    assert report.set_aside == {"profiling_denied": 3 - len(taken)}
    assert report.accepted == 3 + len(taken)
    archive = Archive(home / "archive" / "events")
    found = {names[user]: history for user, history in archive.histories()}
    for who in PEOPLE:
        kept = [event for event in found[who] if event.id.startswith(who)]
        assert {event.type for event in kept} == (
            {"view_item", "login"} if who in taken else {"consent_updated"}
        )
        assert all(not event.items for event in kept) == (who not in taken)
        assert [event.consent for event in kept if event.consent] == [{"ads": True}]
