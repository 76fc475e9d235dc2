"""Export, erase, import: the profile that follows is the one that was exported."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from api_calls import purchase, view
from gateway_thread import Api

from feature_repo import importers
from feature_repo.events.schema import iso, now_ms
from feature_repo.importers.report import ImportReport
from services.client import Client
from services.rebuild.run import find_users, rebuild
from services.update import updater


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        yield make_api(archive_every_s=0.1, replay_clock=True)


def shop(client: Client, user: str) -> None:
    """Let a visitor browse, sign in, buy, decide about consents, and come late."""
    ghost, now = f"{user}-ghost", now_ms()
    anonymous = {"type": "view_item", "anonymous_id": ghost, "items": [{"item_id": "G"}]}
    events: list[dict[str, Any]] = [
        anonymous | {"consent": {"ads": True, "email": False}},
        view(user, "early", consent={"ads": False, "email": True}),
        view(user, "A", anonymous_id=ghost),
        anonymous,
        purchase(user, "B", value=12.5, channel="web"),
        view(user, "late", time=iso(now - 3_600_000)),
        {"type": "refund", "user_id": user, "order_id": "o-B", "items": [{"item_id": "B"}],
         "value": 2.5},
        {"type": "search", "user_id": user, "query": "tea", "properties": {"a": [1, 2.5, None]}},
        {"type": "consent_updated", "user_id": user, "consent": {"profiling": True},
         "properties": {"terms": {"profiling": {"version": "7"}}}},
    ]  # fmt: skip
    for number, event in enumerate(events):
        named = {"time": iso(now + number * 1000), "id": f"{user}-{number}", **event}
        client.post_event(named, return_profile=True)


def kept(client: Client, user: str) -> dict[str, Any]:
    """Return an export without what another reading changes."""
    document: dict[str, Any] = dict(client.export(user))
    for name in ("exported_at", "audiences", "features"):
        document.pop(name)
    for event in document["events"]:
        event.pop("position")
    return document


def test_who_is_exported_erased_and_imported_is_who_they_were(
    client: Client, api: Api, user: str, tmp_path: Path
) -> None:
    shop(client, user)
    before, profile = kept(client, user), client.profile(user)
    assert profile["identity"]["linked"] == 1
    assert before["counts"]["events"] == profile["event_count"] == 9
    assert {said["purpose"] for said in before["consent_history"]} == {"ads", "email", "profiling"}
    file = tmp_path / "person.json"
    file.write_bytes(orjson.dumps(client.export(user), option=orjson.OPT_INDENT_2))

    begun = client.privacy.erase_all([user], suppress=False)
    client.privacy.wait_erased(begun["erasure_id"])
    assert client.http.get(f"/v1/users/{user}/export").status_code == 404
    report = load(api, file)
    assert (report.rows_in, report.accepted, report.events_new) == (9, 9, 9)
    rebuild(api.settings, users=find_users(api.settings, [user]))

    assert client.profile(user) == profile
    assert kept(client, user) == before
    assert load(api, file).events_new == 0
    client.post_event(view(user, "next", anonymous_id=f"{user}-ghost"), return_profile=True)
    assert client.profile(f"{user}-ghost")["version"] == profile["version"] + 1


def load(api: Api, file: Path) -> ImportReport:
    return importers.run("export", home=api.settings.home, path=file)
