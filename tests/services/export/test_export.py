"""The export: complete, of the shape that its schema says, and never whole if it is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from api_calls import refused, view
from feast.protos.feast.types.Value_pb2 import Value
from gateway_thread import ADMIN_KEY, Api
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner
from waiting import wait_until

from feature_repo.audiences.index import CLUSTERS, PROPENSITIES, WORDS
from feature_repo.errors import StoreUnavailableError
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.online.live_row import field_key, row_key
from feature_repo.user_profile.consent import MAX_LINKED
from services.audiences import watch
from services.client import Client
from services.commands.cli import app
from services.erasure.idle import IdleBounds, sweep_idle
from services.export import sections
from services.export.pool import MOST_AT_ONCE
from services.gateway import exports
from services.update import updater

CAMPAIGN = {
    "audience": "viewers", "offer": {"id": "tea"}, "channel": "email",
    "window": {"from": "2020-01-01", "until": "2099-01-01"}, "rank_by": "random", "top": 100,
    "control": {"holdout": 0},
}  # fmt: skip
VIEWERS = {"rule": {"event": {"type": "view_item"}}, "consent": []}
EMAILED = {"rule": {"trait": {"name": "lifecycle.stage", "eq": "visitor"}}, "consent": ["email"]}


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        patch.setattr(watch, "READ_EVERY_S", 0.0)
        yield make_api(archive_every_s=0.1)


@pytest.fixture(scope="module")
def pseudonyms(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home)


@pytest.fixture
def store(api: Api) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(api.url) as client:
        yield client


def validate(client: Client, document: Any) -> None:
    schema = client.privacy.export_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


def test_every_place_where_somebody_is_kept_is_in_it(
    client: Client, api: Api, user: str, pseudonyms: Pseudonyms, store: redis.Redis
) -> None:
    entity, ghosts = pseudonyms.of_user(user), [f"{user}-g{n}" for n in range(MAX_LINKED + 2)]
    client.audiences.put("viewers", VIEWERS)
    client.audiences.put("emailed", EMAILED)
    client.campaigns.put("spring", CAMPAIGN)
    wait_until(lambda: is_followed(client, store, f"{user}-other"), "the updater's look at it")
    for ghost in ghosts[:2]:
        client.post_event({"type": "login", "anonymous_id": ghost})
    for ghost in ghosts:
        client.post_event(view(user, anonymous_id=ghost), return_profile=True)
    client.wait_applied(client.put_consents(user, {"email": True, "ads": False})["receipt"])
    decided = client.campaigns.decide("spring", user, decision_id="d-1")
    assert decided["arm"] == "treated"
    lay_beside(api, store, entity)
    letter = bury(store, entity)
    wait_until(lambda: len(list(told_of(store, entity))), "what follows the commit")

    document: Any = client.export(user)
    validate(client, document)
    assert document["identity"]["pseudonym"] == entity
    linked = {one["pseudonym"]: one for one in document["identity"]["linked"]}
    assert linked.keys() == {pseudonyms.of_anonymous(ghost) for ghost in ghosts}
    assert linked[pseudonyms.of_anonymous(ghosts[0])]["earlier_events"]
    assert document["consents"]["marketing_email"]["granted"]
    profile = client.profile(user)
    for part in ("version", "identity", "consent", "recent", "session"):
        assert document["profile"][part] == profile[part]
    features = document["features"]["profile"]
    assert features["values"]["num_orders_total"] | {"meaning": ""} == {
        "value": 7, "unit": "orders", "meaning": "",
    }  # fmt: skip
    assert features["as_of"] == "2026-01-31T00:00:00.000Z"
    assert document["features"]["live_state"]["snapshots"]["rows"] == 1
    assert document["scores"]["propensities"][0]["p"] == 0.25
    assert document["scores"]["cluster"]["meaning"] == "tea in the morning"
    assert "emailed" in document["audiences"]["member_of"]
    changes = [(c["audience"], c["change"]) for c in document["audiences"]["changes"]]
    assert ("emailed", "entered") in changes
    [decision] = document["campaigns"]["decisions"]
    assert (decision["campaign_id"], decision["decision_id"]) == ("spring", "d-1")
    assert decision["logged"]
    assert decision["decision"]["arm"] == "treated"
    [message] = document["campaigns"]["messages"]
    assert (message["channel"], message["decision_id"]) == ("email", "d-1")
    [dead] = document["dead_letters"]
    assert (dead["id"], dead["event"]["id"]) == (f"{entity[1:5]}-{letter}", "e-dead")
    assert [e["applied"] for e in document["events"] if e["id"] == "e-dead"] == [False]
    assert sum("of" in event for event in document["events"]) == 2
    assert document["counts"]["events"] == len(document["events"]) == len(ghosts) + 2 + 1 + 2 + 1
    assert document["counts"]["consent_history"] == len(document["consent_history"]) == 2


def is_followed(client: Client, store: redis.Redis, user: str) -> bool:
    """Let another user enter and leave; say whether the updater tells of it by now."""
    for granted in (True, False):
        client.wait_applied(client.put_consents(user, {"email": granted})["receipt"])
    return bool(store.xlen(watch.CHANGES))


def told_of(store: redis.Redis, entity: str) -> Iterator[bytes]:
    for _, fields in store.xrange(watch.CHANGES):
        if fields[b"user"] == entity.encode():
            yield fields[b"audience"]


def lay_beside(api: Api, store: redis.Redis, entity: str) -> None:
    """Put batch features, scores, a cluster and a snapshot where nightly jobs put them."""
    moment = Timestamp()
    moment.FromDatetime(datetime(2026, 1, 31))  # noqa: DTZ001 - protobuf's own way
    store.hset(row_key(entity), mapping={
        field_key("profile", "num_orders_total"): Value(int64_val=7).SerializeToString(),
        b"_ts:profile": moment.SerializeToString(),
    })  # fmt: skip
    folder, now = api.settings.home / "audiences", datetime.now(UTC)
    folder.mkdir(exist_ok=True)
    scores = pa.table([[entity], ["purchase_7d"], [0.25], [10**12]], schema=PROPENSITIES)
    words = CLUSTERS.with_metadata({WORDS: orjson.dumps({"3": "tea in the morning"})})
    clusters = pa.table([[entity], [now], [now], [3]], schema=words)
    snapshot = api.settings.home / "features" / "live_state"
    snapshot.mkdir(parents=True, exist_ok=True)
    pq.write_table(scores, folder / "chances.parquet")
    pq.write_table(clusters, folder / "clusters.parquet")
    pq.write_table(
        pa.table({"user": [entity], "event_timestamp": [now]}), snapshot / "part.parquet"
    )


def bury(store: redis.Redis, entity: str) -> str:
    """Put a dead letter of the user's down, as the updater would; return its name."""
    from feature_repo.events.schema import EventRecord

    record = EventRecord(
        id="e-dead", type="login", user=entity, time_ms=10**12, received_ms=10**12
    ).encode()
    partition = partition_of(entity)
    entry = store.xadd(b"{p%03d}log" % partition, {b"e": record})
    body = msgspec.msgpack.encode({"record": record, "entry": entry.decode(), "reason": "odd"})
    name: bytes = store.xadd(b"{p%03d}dead" % partition, {b"e": body})
    return name.decode()


def test_a_visitor_and_an_anonymous_id_are_exported_as_what_they_are(
    client: Client, user: str
) -> None:
    visit = {"type": "view_item", "anonymous_id": user, "items": [{"item_id": "A"}]}
    client.post_event(visit, return_profile=True)
    alone: Any = client.export(user)
    validate(client, alone)
    assert (alone["identity"]["id_type"], alone["counts"]["events"]) == ("anonymous_id", 1)
    client.post_event(view(f"{user}-known", anonymous_id=user), return_profile=True)
    linked: Any = client.export(user)
    assert (linked["identity"]["id_type"], linked["counts"]["events"]) == ("linked_id", 2)


def test_who_may_not_is_refused(client: Client, api: Api, user: str) -> None:
    path = f"/v1/users/{user}/export"
    assert refused(client, "GET", path)["status"] == 404
    client.post_event(view(user), return_profile=True)
    key = client.keys.create("shop", "server")["key"]
    with api.client(key) as server:
        assert refused(server, "GET", path)["status"] == 403
    client.privacy.erase(user)
    assert refused(client, "GET", path)["status"] == 410
    schema = httpx2.get(f"{client.base_url}/v1/schemas/export")
    assert (schema.status_code, schema.json()["title"]) == (200, "Export")


def test_more_exports_at_once_than_may_be_wait(client: Client, user: str) -> None:
    client.post_event(view(user), return_profile=True)
    for _ in range(MOST_AT_ONCE):
        assert exports._AT_ONCE.acquire(blocking=False)
    try:
        answer = client.http.get(f"/v1/users/{user}/export")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    finally:
        exports._AT_ONCE.release(MOST_AT_ONCE)
    assert client.export(user)["complete"]


def test_readers_who_leave_give_their_turn_back(client: Client, user: str) -> None:
    for start in range(0, 3_000, 1_000):
        some = [
            view(user, id=f"{user}-{n}", properties={"text": "x" * 1_000})
            for n in range(start, start + 1_000)
        ]
        receipt = client.post_batch(some)["receipt"]
    client.wait_applied(receipt)
    for _ in range(MOST_AT_ONCE + 1):
        with contextlib.closing(client.stream_export(user)) as pieces:
            next(pieces)
    wait_until(lambda: exports._AT_ONCE._value == MOST_AT_ONCE, "their turns")
    assert client.export(user)["counts"]["events"] == 3_000


@pytest.mark.parametrize("how", ["erased", "swept", "same again", "another"])
def test_who_is_somebody_else_meanwhile_gets_no_whole_export(
    client: Client, api: Api, user: str, store: redis.Redis, how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A slow reader pauses; the user is erased or swept, and their id may begin anew."""
    now = datetime.now(UTC).isoformat()
    old = [view(user, "OLD", id=f"{user}-{n}", time=now) for n in range(3)]
    client.wait_applied(client.post_batch(old)["receipt"])

    def change() -> None:
        with api.client() as other:
            if how == "swept":
                far_ms = 2**42
                far = IdleBounds(far_ms, far_ms, far_ms, api.settings.standing)
                assert sweep_idle(store, api.settings.partitions, far).counts["profiles"]
                assert other.http.get(f"/v1/users/{user}/profile").status_code == 404
                return
            named = f"{user}-other" if how == "another" else user
            begun = other.privacy.erase_all([named], suppress=False)
            other.privacy.wait_erased(begun["erasure_id"])
            if how == "same again":
                other.wait_applied(other.post_batch(old)["receipt"])
            elif how == "erased":
                other.post_event(view(user, "NEW"), return_profile=True)

    read = sections.read_messages

    async def pause(context: Any, pseudonym: str) -> AsyncIterator[Any]:
        await asyncio.to_thread(change)
        async for page in read(context, pseudonym):
            yield page

    monkeypatch.setattr(sections, "read_messages", pause)
    pieces = list[bytes]()
    if how == "another":
        assert b'"complete":true' in b"".join(client.stream_export(user))
        return
    with pytest.raises(httpx2.TransportError):
        pieces.extend(client.stream_export(user))
    assert b"complete" not in b"".join(pieces)
    assert b"NEW" not in b"".join(pieces)


def test_one_that_is_broken_off_is_not_whole(
    client: Client, api: Api, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post_event(view(user), return_profile=True)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path))
    monkeypatch.setenv("PORTRAIT_PORT", str(api.port))
    monkeypatch.setenv("PORTRAIT_API_KEY", ADMIN_KEY)
    out = tmp_path / "out" / "person.json"
    out.parent.mkdir()

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("away")

    command = ["privacy", "export", user, "--out", str(out), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(sections, "read_messages", fail)
        pieces = list[bytes]()
        with pytest.raises(httpx2.TransportError):
            pieces.extend(client.stream_export(user))
        broken = CliRunner().invoke(app, command)
        assert broken.exit_code == 1, broken.output
        assert "broken off" in broken.stderr
        assert list(out.parent.iterdir()) == []
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = orjson.loads(done.stdout.splitlines()[-1])
    assert (said["bytes"], said["counts"]["events"]) == (out.stat().st_size, 1)
    assert orjson.loads(out.read_bytes())["complete"]
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(out.parent.iterdir()) == [out]
    shown = CliRunner().invoke(app, ["privacy", "export", user])
    assert orjson.loads(shown.stdout)["user_id"] == user
    for arguments, told in (
        ([user, "--out", str(tmp_path)], "is a folder"), (["x" * 129], "129 characters"),
        (["nobody"], "404"), ([user, "--out", str(tmp_path / "no" / "file")], "No such file"),
    ):  # fmt: skip
        wrong = CliRunner().invoke(app, ["privacy", "export", *arguments])
        assert (wrong.exit_code, told in wrong.stderr) == (2, True), wrong.stderr
