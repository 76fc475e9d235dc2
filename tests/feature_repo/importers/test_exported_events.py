"""Exports as a source: what is no whole export is refused, and nothing of it is kept."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from feature_repo import importers
from feature_repo.archive.event_archive import Archive
from feature_repo.erasure import tombstones
from feature_repo.errors import InvalidSourceError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import EventRecord
from feature_repo.importers.report import ImportReport

TIME = "2026-01-31T12:00:00.000Z"
STRANGER = "{p003}" + "a" * 26


def event(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "view_item", "time": TIME, "received_at": TIME,
            "position": "5-0", "items": [{"item_id": "A", "quantity": 1.0}], **more}  # fmt: skip


def document(pseudonym: str, *events: Any, **more: Any) -> dict[str, Any]:
    return {
        "schema": "/v1/schemas/export", "schema_version": 1, "user_id": "7",
        "identity": {"pseudonym": pseudonym, "id_type": "user_id", "linked": []},
        "consents": {}, "profile": {"any": ["thing"]}, "events": list(events), "counts": {},
        "complete": True,
    } | more  # fmt: skip


def load(home: Path, body: Any) -> ImportReport:
    file = home.parent / "person.json"
    file.write_bytes(body if isinstance(body, bytes) else orjson.dumps(body))
    return importers.run("export", home=home, path=file)


def kept(home: Path, pseudonym: str) -> list[EventRecord]:
    found = dict(Archive(home / "archive" / "events").histories([pseudonym]))
    return found.get(pseudonym, [])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def mine(home: Path) -> str:
    return Pseudonyms.load(home).of_user("7")


def test_events_come_back_in_the_order_of_the_file(home: Path, mine: str) -> None:
    odd = [
        event("dead", applied=False), event("late", time="1980-01-01T00:00:00Z"), event("x", y=1),
        event("z", of="somebody"), "no event", event("no-item", items=[{"quantity": "many"}]),
    ]  # fmt: skip
    report = load(home, document(mine, event("b"), *odd, event("a")))
    assert [each.id for each in kept(home, mine)] == ["b", "a"]
    assert (report.rows_in, report.accepted, report.set_aside) == (8, 2, {"not_applied": 1})
    assert report.rejected == {"invalid_event": 3, "impossible_time": 1, "malformed_json": 1}
    assert load(home, document(mine, event("b"), event("a"))).events_new == 0


@pytest.mark.parametrize(
    "strange",
    [
        {"id": "\ud800"}, {"query": "\ud800"}, {"properties": {"x": "\ud800"}},
        {"properties": {"\ud800": 1}}, {"properties": {"x": 10**30}},
        {"properties": {"x": json.loads("[" * 600 + "]" * 600)}},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_alone(
    home: Path, mine: str, strange: dict[str, Any]
) -> None:
    body = document(mine, event("a"), event("b") | strange)
    report = load(home, json.dumps(body).encode())
    assert [each.id for each in kept(home, mine)] == ["a"]
    assert report.rejected == {"invalid_event": 1}


def test_a_consent_that_cannot_be_kept_is_refused_alone(home: Path, mine: str) -> None:
    said = {"granted": True, "at": TIME, "source": "\ud800"}
    body = document(mine, event("a"), consents={"ads": said})
    assert load(home, json.dumps(body).encode()).rejected == {"invalid_event": 1}
    assert [each.id for each in kept(home, mine)] == ["a"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"complete": False}, "broken off"),
        ({"schema": "/v1/schemas/other"}, "no export"),
        ({"schema_version": 2}, "no export"),
        ({"identity": None}, "whose it is"),
        ({"identity": {"pseudonym": STRANGER, "id_type": "linked_id", "linked": []}}, "own id"),
    ],
)
def test_what_is_no_export_is_refused(
    home: Path, mine: str, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidSourceError, match=told):
        load(home, document(mine, event("a"), **change))
    assert not kept(home, mine)


def test_a_file_that_is_cut_anywhere_is_refused(home: Path, mine: str) -> None:
    whole = orjson.dumps(document(mine, event("a"), event("b")))
    for end in (*range(0, len(whole) - 1, 37), len(whole) - 1):
        with pytest.raises(InvalidSourceError, match=r"no whole JSON object|nothing|empty"):
            load(home, whole[:end])
    for more in (b"{}", b"x"):
        with pytest.raises(InvalidSourceError, match="behind the object"):
            load(home, whole + more)
    assert not kept(home, mine)
    assert load(home, whole + b"\n").events_new == 2


def test_anonymous_ids_of_another_shop_are_apart_from_this_ones(home: Path, mine: str) -> None:
    theirs = "{p001}" + "b" * 26
    load(home, document(STRANGER, event("a", of=theirs), event("b", linked=theirs)))
    [linking] = kept(home, mine)
    assert linking.linked is not None
    assert linking.linked != theirs
    assert [each.anonymous for each in kept(home, linking.linked)] == [True]


def test_what_stands_of_consent_and_no_event_says_is_stated_again(home: Path, mine: str) -> None:
    said = {"granted": False, "at": TIME, "source": "web", "expires_at": None, "version": "3"}
    default = said | {"at": None, "source": "default"}
    told = {"profiling": said, "ads": said, "analytics": default}
    load(home, document(mine, event("a", consent={"ads": False}), consents=told))
    [_, again] = kept(home, mine)
    assert (again.type, again.consent, again.source) == (
        "consent_updated", {"profiling": False}, "web",
    )  # fmt: skip
    assert again.properties == {"terms": {"profiling": {"version": "3"}}}


def test_the_erased_stay_erased(home: Path, mine: str) -> None:
    tombstones.add(home, [mine])
    assert load(home, document(mine, event("a"))).set_aside == {"erased": 1}
    assert not kept(home, mine)
