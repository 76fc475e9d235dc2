"""Aliases of models in the store: given in one step, taken back, and adopted once."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_repo.errors import ConflictError, GateError, NotFoundError
from feature_repo.online.connection import connect_async
from services.models import folder, gate, registry
from services.models import promotion as aliases_given
from services.models.folder import StoredModel
from services.models.gate import GateFinding
from services.models.promotion import Promotion

Ask = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture
def ask(redis_url: str) -> Ask:
    """Return a function that asks a client of the store."""

    async def run(act: Callable[[Any], Any]) -> Any:
        client = connect_async(redis_url)
        try:
            return await act(client)
        finally:
            await client.aclose()

    return lambda act: asyncio.run(run(act))


@pytest.fixture(autouse=True)
def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "RULES", ())


@pytest.fixture
def home(tmp_path: Path, store_client: redis.Redis) -> Path:
    for number, name in enumerate(("a", "b", "c")):
        make(tmp_path, name, f"2026-11-0{number + 1}T00:00:00.000Z")
    return tmp_path


def make(home: Path, name: str, created_at: str | None, **more: Any) -> Path:
    path = home / "models" / name
    path.mkdir(parents=True)
    manifest = {"version": f"v-{name}", **more} | ({"created_at": created_at} if created_at else {})
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def promotion(home: Path, **more: Any) -> Callable[[Any], Promotion]:
    return lambda client: Promotion(client, home, "test", **more)


def names(client: Any) -> dict[str, str | None]:
    return registry.read(client).names()


def test_the_newest_by_its_manifest_is_adopted_once_whatever_the_files_dates(
    home: Path, store_client: redis.Redis
) -> None:
    os.utime(home / "models" / "a" / "manifest.json", (4e9, 4e9))
    assert registry.adopt(store_client, home).names()["production"] == "c"
    make(home, "d", "2027-01-01T00:00:00.000Z")
    found = registry.adopt(store_client, home)
    assert (found.names()["production"], found.generation) == ("c", 1)


def test_a_manifest_of_before_is_as_old_as_its_data(tmp_path: Path) -> None:
    make(tmp_path, "new", None, training={"validated_until": "2026-02-01T00:00:00.000Z"})
    make(tmp_path, "old", None, training={"validated_until": "2026-01-01T00:00:00.000Z"})
    make(tmp_path, "odd", "no time", training=None)
    make(tmp_path, ".run-x", "2030-01-01T00:00:00.000Z")
    (tmp_path / "models" / "empty").mkdir()
    newest = folder.newest(tmp_path)
    assert newest is not None
    assert newest.name == "new"
    assert [each.name for each in folder.list_models(tmp_path)] == ["new", "odd", "old"]


def test_without_models_nothing_is_adopted(tmp_path: Path, store_client: redis.Redis) -> None:
    assert registry.adopt(store_client, tmp_path).generation == 0
    make(tmp_path, "first", "2026-11-01T00:00:00.000Z")
    assert registry.adopt(store_client, tmp_path).names()["production"] == "first"


def test_promotion_and_rollback_go_back_one_by_one(
    home: Path, store_client: redis.Redis, ask: Ask
) -> None:
    on = promotion(home)
    for name in ("a", "b", "c", "c"):
        ask(lambda client, name=name: on(client).promote(name))
    assert names(store_client)["production"] == "c"
    assert registry.read(store_client).generation == 3  # what it is already changes nothing
    _, after = ask(lambda client: on(client).roll_back("c"))
    assert (after.names()["production"], after.is_rollback, after.previous.name) == ("b", True, "a")
    with pytest.raises(ConflictError, match="production is b, not c"):
        ask(lambda client: on(client).roll_back("c"))
    ask(lambda client: on(client).roll_back())
    with pytest.raises(ConflictError, match="nothing to go back to"):
        ask(lambda client: on(client).roll_back())
    assert names(store_client)["production"] == "a"
    ask(lambda client: on(client).promote("b"))
    assert registry.read(store_client).is_rollback is False
    noted = ask(lambda client: registry.list_changes(client, 10))
    assert [(each.action, each.name, each.before) for each in noted[:3]] == [
        ("promote", "b", "a"), ("rollback", "a", "b"), ("rollback", "b", "c"),
    ]  # fmt: skip
    assert {each.by for each in noted} == {"test"}


def test_a_trained_model_is_candidate_and_production_where_none_is(
    home: Path, store_client: redis.Redis, ask: Ask
) -> None:
    on = promotion(home)
    ask(lambda client: on(client).publish("a", is_promoted=False))
    assert names(store_client) == {"production": "a", "shadow": None, "candidate": "a"}
    ask(lambda client: on(client).publish("b", is_promoted=False))
    ask(lambda client: on(client).promote("c", "shadow"))
    assert names(store_client) == {"production": "a", "shadow": "c", "candidate": "b"}
    ask(lambda client: on(client).publish("c", is_promoted=True))
    assert names(store_client) == {"production": "c", "shadow": "c", "candidate": "c"}


def test_what_an_alias_names_or_a_rollback_needs_is_not_removed(
    home: Path, store_client: redis.Redis, ask: Ask
) -> None:
    on = promotion(home)
    ask(lambda client: on(client).promote("a"))
    ask(lambda client: on(client).promote("b"))
    with pytest.raises(ConflictError, match="b is production"):
        ask(lambda client: on(client).remove("b"))
    with pytest.raises(ConflictError, match="a is what a rollback"):
        ask(lambda client: on(client).remove("a"))
    with pytest.raises(NotFoundError, match="no model 'nobody'"):
        ask(lambda client: on(client).remove("nobody"))
    with pytest.raises(NotFoundError):
        ask(lambda client: on(client).remove("../models/c"))
    before = registry.read(store_client)
    assert before.generation == 2
    ask(lambda client: on(client).remove("c"))
    assert sorted(path.name for path in (home / "models").iterdir()) == ["a", "b"]


def test_a_model_that_is_removed_while_it_is_examined_gets_no_alias(
    home: Path, store_client: redis.Redis, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = promotion(home)
    ask(lambda client: on(client).promote("a"))

    def examine(*_: Any, **__: Any) -> tuple[()]:
        monkeypatch.undo()
        shutil.move(home / "models" / "c", home / "models" / ".removed-c")
        return ()

    monkeypatch.setattr(gate, "examine", examine)
    with pytest.raises(NotFoundError, match="c was removed meanwhile"):
        ask(lambda client: on(client).promote("c"))
    assert names(store_client)["production"] == "a"


def test_a_model_that_got_an_alias_meanwhile_is_not_removed(
    home: Path, store_client: redis.Redis, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = promotion(home)
    put_aside = aliases_given._put_aside

    def promote_first(path: Path) -> Path:
        thread = threading.Thread(target=ask, args=[lambda client: on(client).promote("c")])
        thread.start()
        thread.join()
        return put_aside(path)

    monkeypatch.setattr(aliases_given, "_put_aside", promote_first)
    with pytest.raises(ConflictError, match="c is production"):
        ask(lambda client: on(client).remove("c"))
    assert names(store_client)["production"] == "c"
    assert (home / "models" / "c" / "manifest.json").exists()


def test_the_gate_refuses_and_is_overruled_but_for_what_is_final(
    home: Path, store_client: redis.Redis, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(model: StoredModel) -> Iterator[GateFinding]:
        yield GateFinding("worse", f"{model.name} is worse")
        if model.name == "b":
            yield GateFinding("fits", "does not fit", is_final=True)

    monkeypatch.setattr(gate, "RULES", (worse,))
    on = promotion(home)
    with pytest.raises(GateError, match="a is worse") as refused:
        ask(lambda client: on(client).promote("a"))
    assert refused.value.findings == [("worse", "a is worse")]
    with pytest.raises(GateError) as refused:
        ask(lambda client: on(client).promote("b", is_forced=True))
    assert refused.value.findings == [("fits", "does not fit")]
    assert registry.read(store_client).generation == 0
    ask(lambda client: on(client).promote("a", is_forced=True))
    assert names(store_client)["production"] == "a"
    assert ask(lambda client: registry.list_changes(client, 1))[0].is_forced


def test_a_set_directory_is_not_promoted_over(
    home: Path, store_client: redis.Redis, ask: Ask
) -> None:
    on = promotion(home, pinned=home / "models" / "a")
    for act in ("promote", "roll_back"):
        with pytest.raises(ConflictError, match="PORTRAIT_MODEL"):
            ask(lambda client, act=act: getattr(on(client), act)(*["b"][: act == "promote"]))
    ask(lambda client: on(client).promote("b", "candidate"))
    assert names(store_client)["candidate"] == "b"


def test_changes_at_once_lose_none(home: Path, store_client: redis.Redis, ask: Ask) -> None:
    async def all_at_once(client: Any) -> None:
        on = promotion(home)(client)
        await asyncio.gather(
            on.promote("a"), on.promote("b", "shadow"), on.promote("c", "candidate")
        )

    ask(all_at_once)
    assert names(store_client) == {"production": "a", "shadow": "b", "candidate": "c"}
    assert registry.read(store_client).generation == 3


def test_a_renamed_directory_is_found_by_its_version(home: Path, store_client: redis.Redis) -> None:
    found = registry.adopt(store_client, home).production
    (home / "models" / "c").rename(home / "models" / "other")
    path = registry.path_of(home, found)
    assert path is not None
    assert path.name == "other"
    (home / "models" / "other" / "manifest.json").unlink()
    assert registry.path_of(home, found) is None
