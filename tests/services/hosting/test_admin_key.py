"""The generated admin key: one, kept for its owner alone, the same at every start."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from feature_repo.errors import InvalidSettingError
from feature_repo.events.schema import now_ms
from services.app import build
from services.commands.cli import app
from services.hosting import admin_key
from services.hosting.embedded import free_port
from services.hosting.serve import check
from services.http import api_keys
from services.http.key_records import KeyRecords
from services.settings import Settings


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert admin_key.read(home) is None
    key = admin_key.keep(home)
    assert key == admin_key.keep(home) == admin_key.read(home)
    assert [path.name for path in home.iterdir()] == ["admin.key"]
    assert (home / "admin.key").stat().st_mode & 0o777 == 0o600


def test_a_start_leaves_one_generated_key_and_every_other_key(
    tmp_path: Path, store_client: Any
) -> None:
    for old in ("old", "older"):
        api_keys.register(store_client, old, name="generated", scope="admin")
    api_keys.register(store_client, "shop", name="shop", scope="server")
    named = b'{"name":"generated","scope":"write","created_ms":1}'
    store_client.hset(api_keys.KEYS, api_keys.digest("an admin's"), named)
    key = admin_key.keep(tmp_path)
    for _ in range(2):
        admin_key.register(store_client, key)
        kept = {name.decode() for name in store_client.hgetall(api_keys.KEYS)}
        assert kept == {api_keys.digest(each) for each in (key, "shop", "an admin's")}
    admin_key.register(store_client, None)
    assert not store_client.hexists(api_keys.KEYS, api_keys.digest(key))
    assert store_client.hlen(api_keys.KEYS) == 2


@pytest.mark.parametrize("end", ["revoked", "rotated", "expired"])
def test_a_kept_key_that_was_ended_is_never_valid_again(
    tmp_path: Path, redis_url: str, store_client: Any, end: str
) -> None:
    key, _ = admin_key.prepare(store_client, tmp_path)
    assert admin_key.prepare(store_client, tmp_path) == (key, None)
    name = api_keys.id_of(api_keys.digest(key))

    async def finish() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            records = KeyRecords(client)
            if end == "revoked":
                await records.revoke(name, now_ms())
            else:
                await records.rotate(name, 3600 if end == "rotated" else 0, now_ms() - 1)

    asyncio.run(finish())
    left = store_client.hgetall(api_keys.KEYS)
    admin_key.register(store_client, None)  # a start with a setting forgets nothing
    other, told = admin_key.prepare(store_client, tmp_path)
    assert told == end
    assert other == admin_key.read(tmp_path) != key
    assert admin_key.prepare(store_client, tmp_path) == (other, None)
    now = store_client.hgetall(api_keys.KEYS)
    assert now.pop(api_keys.digest(other).encode())
    assert now == left


@pytest.mark.parametrize("kept", ["", "secret\n", "a" * 60])
def test_a_file_that_holds_no_key_is_refused_with_the_mend(tmp_path: Path, kept: str) -> None:
    (tmp_path / "admin.key").write_text(kept)
    with pytest.raises(InvalidSettingError, match="remove it, and the next start makes one"):
        check(Settings(home=tmp_path, port=free_port(), api_key=None))


@pytest.mark.parametrize(
    "weak",
    ["key", "choose-one", "correct horse battery", "0123456789abcdef01234567", "a1" * 40,
     "0123456789" * 3, "abcdefgh" * 4, "0123456789abcdef" * 2, "Xk29fQ7rTb" * 3,
     "pK7-vQ2_x9" * 2 + "pK7-vQ2",
     "abcdefghijklmnopqrstuvwxyz",
     "Qwertyuiop-Asdfghjkl-Zxcvbnm", "zyxwvutsrqponmlkjihg9876543210"],
)  # fmt: skip
def test_a_key_that_could_be_guessed_is_refused_with_the_mend(
    weak: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_API_KEY", weak)
    monkeypatch.setenv("PORTRAIT_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(app, ["serve", "--port", str(free_port())])
    assert done.exit_code == 2
    assert "openssl rand -base64 24" in done.stderr
    assert weak not in done.stderr
    assert not (tmp_path / "home").exists()
    with pytest.raises(InvalidSettingError, match="could be guessed"):
        build({"redis_url": "redis://127.0.0.1:1"})


@given(st.binary(min_size=16, max_size=32))
def test_no_short_key_is_strong(some: bytes) -> None:
    """A key of 21 letters or 31 hex digits is worth less than 128 bits, whatever they are."""
    assert api_keys.find_weakness(some.hex()[:31]) is not None
    assert api_keys.find_weakness(api_keys.generate()[:21]) is not None


def test_keys_that_tools_make_are_strong() -> None:
    for _ in range(200):
        assert api_keys.find_weakness(api_keys.generate()) is None
    assert api_keys.find_weakness("9f86d081884c7d659a2feaa0c55ad015") is None  # 16 bytes in hex
    assert api_keys.find_weakness("q83vEjRWeJCrze8SNFZ4kA") is None  # and in base64
