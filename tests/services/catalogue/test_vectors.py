"""Vectors of items: kept as given, of one length, the same in every gateway and after a load."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import redis
from api_calls import refused
from gateway_thread import Api
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.archive.catalogue import Item, pack_vector, unpack_vector
from feature_repo.online.connection import connect_async
from services.catalogue import vectors
from services.catalogue.catalogue import Catalogue
from services.catalogue.vectors import Vectors, unit
from services.client import Client


@pytest.fixture(autouse=True)
def without_vectors(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "api" in request.fixturenames:
        store = redis.Redis.from_url(request.getfixturevalue("api").url)
        store.delete(vectors.KEY)
        store.close()


def test_a_vector_is_answered_as_it_was_put(client: Client, user: str) -> None:
    item = {"item_id": user, "description": "Mild.", "vector": [0.1, -2, 3e-8]}
    assert client.put_item(item)["vector"] == client.item(user)["vector"] == [0.1, -2.0, 3e-8]
    assert client.patch_item(user, {"price": 2})["vector"] == [0.1, -2.0, 3e-8]
    assert client.patch_item(user, {"vector": [1, 2, 3]})["vector"] == [1.0, 2.0, 3.0]
    assert client.item(user) == client.patch_item(user, {"vector": [1, 2, 3]})
    assert "vector" not in client.patch_item(user, {"vector": None})
    client.patch_items([{"item_id": user, "vector": [4, 5]}])
    assert client.item(user)["vector"] == [4.0, 5.0]
    client.put_item({"item_id": user})  # replaces the whole
    assert "vector" not in client.item(user)


def test_a_vector_of_another_length_is_refused_and_changes_nothing(
    client: Client, user: str
) -> None:
    first, other = f"{user}-a", f"{user}-b"
    client.put_item({"item_id": first, "vector": [1, 2, 3]})
    client.put_item({"item_id": other, "title": "Tea"})
    words = "the vector has 2 numbers, those of the catalogue have 3"
    for method in ("PUT", "PATCH"):
        body = {"title": "new", "vector": [1, 2]}
        problem = refused(client, method, f"/v1/items/{other}", json=body)
        assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "/vector")
        assert words in problem["detail"]
    change = {"item_id": other, "vector": [1, 2]}
    for taken in (client.patch_items([change]), client.put_items([change])):
        assert taken["accepted"] == 0
        assert words in taken["errors"][0]["detail"]
    assert client.item(other)["title"] == "Tea"
    assert "vector" not in client.item(other)
    client.patch_item(first, {"vector": None})  # the last one: now any length goes
    taken = client.put_items([change, {"item_id": first, "vector": [1]}])
    assert [error["index"] for error in taken["errors"]] == [1]
    assert client.item(other)["vector"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("vector", "pointer"),
    [("[]", "/vector"), (str([0] * 1025), "/vector"), ('[1, "2"]', "/vector/1"),
     ("[true]", "/vector/0"), ('"AAAA"', "/vector"), ("[1e39]", "/vector/0"),
     ("[[1]]", "/vector/0"), ("[null]", "/vector/0")],
)  # fmt: skip
def test_what_is_no_vector_is_refused(client: Client, vector: str, pointer: str) -> None:
    content = f'{{"item_id": "v", "vector": {vector}}}'
    headers = {"content-type": "application/json"}
    problem = refused(client, "PUT", "/v1/items/v", content=content, headers=headers)
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, pointer)


def test_similar_items_go_by_vectors(client: Client, user: str) -> None:
    vectors_of = {"a": [1, 0], "b": [0, 1], "c": [1, 0.5], "d": None}
    for name, vector in vectors_of.items():
        client.put_item({"item_id": user + name, "category": user, "vector": vector})
    found = client.similar(user + "a", n=3)
    assert (found["method"], found["model"]) == ("vector", None)
    assert found["items"][0]["item_id"] == user + "d"  # by text alone, the whole of it shared
    client.patch_item(user + "d", {"vector": [-1, 0]})
    found = client.similar(user + "a", n=3)
    assert found["items"][0]["item_id"] == user + "c"
    assert client.similar(user + "d", n=3)["method"] == "vector"


def test_gateways_know_the_same_vectors(api: Api, user: str) -> None:
    async def change() -> tuple[Catalogue, Catalogue, Catalogue]:
        store = connect_async(api.url)
        writer, reader, late = Catalogue(store), Catalogue(store), Catalogue(store)
        try:
            await writer.put([_item(f"{user}{n}", n) for n in range(300)], 0)
            await writer.put([Item(item_id=f"{user}7")], 0)
            await writer.patch([(f"{user}8", lambda item: _item(item.item_id, 999))])
            await writer.delete(f"{user}9")
            await reader._read([f"{user}{n}" for n in range(300)])
            await late._load()
        finally:
            await store.aclose()
        return writer, reader, late

    copies = [_held(catalogue, user) for catalogue in asyncio.run(change())]
    assert copies[0] == copies[1] == copies[2]
    assert set(copies[0]) == {f"{user}{n}" for n in range(300)} - {f"{user}7", f"{user}9"}
    assert copies[0][f"{user}8"] == pytest.approx([0.001, 1.0], abs=5e-3)


def _item(item_id: str, n: int) -> Item:
    return Item(item_id=item_id, vector=pack_vector([1.0, float(n)]))


def _held(catalogue: Catalogue, user: str) -> dict[str, list[float]]:
    held = catalogue.vectors
    return {i: held.at(row).tolist() for i, row in held.row.items() if i.startswith(user)}


numbers = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3)
edits = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), numbers)), max_size=30)


@given(edits)
def test_a_copy_holds_the_last_vector_of_each_item(changes: list[tuple[str, list[float]]]) -> None:
    copy, expected = Vectors(), dict[str, list[float]]()
    for item, vector in changes:
        copy.take({item: None if vector is None else pack_vector(vector)})
        expected.pop(item, None)
        if vector is not None:
            expected[item] = vector
    assert copy.row.keys() == expected.keys()
    wanted = np.array([0.6, 0.0, 0.8])
    rows = np.array([*copy.row.values(), vectors.NONE])
    cosines = dict(zip([*copy.row, ""], copy.cosines(wanted, rows), strict=True))
    assert cosines.pop("") == 0
    for item, vector in expected.items():
        assert cosines[item] == pytest.approx(unit(np.array([vector]))[0] @ wanted, abs=5e-3)


def test_rows_are_used_again_and_a_new_length_starts_anew() -> None:
    copy = Vectors()
    for n in range(20_000):
        copy.take({"a": pack_vector([1, n])})
    assert len(copy._blocks) == 2
    copy.take({"b": pack_vector([1, 2, 3])})
    assert list(copy.row) == ["b"]
    assert copy.gather(np.array([copy.row["b"]])).shape == (1, 3)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=8))
def test_numbers_are_the_shortest_that_are_the_same(given_numbers: list[float]) -> None:
    shown = unpack_vector(pack_vector(given_numbers))
    assert pack_vector(shown) == pack_vector(given_numbers)
    assert all(float(f"{n:.9g}") == n for n in shown)
