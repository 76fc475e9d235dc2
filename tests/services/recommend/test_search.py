"""Search ranking: a stranger gets the relevance's order, a known user one between the two."""

import pytest
from api_calls import purchase, refused
from gateway_thread import Api
from hypothesis import given
from hypothesis import strategies as st

from services.catalogue.catalogue import Catalogue, Entry
from services.client import Client
from services.recommend.assortment import Assortment
from services.recommend.search import WEIGHT, blend, match_words

numbers = st.floats(-1e30, 1e30)
whole = st.integers(-1000, 1000).map(float)
found = st.lists(st.tuples(numbers, st.one_of(st.none(), numbers)), min_size=1, max_size=20)


def told(pairs: list[tuple[float, float | None]]) -> dict[str, float]:
    some = {str(n): relevance for n, (_, relevance) in enumerate(pairs) if relevance is not None}
    return some or {"0": 0.0}


@given(found)
def test_a_stranger_gets_exactly_the_order_of_the_relevance(
    pairs: list[tuple[float, float | None]],
) -> None:
    scored = [(str(n), score) for n, (score, _) in enumerate(pairs)]
    relevance = told(pairs)
    values = [relevance.get(item, min(relevance.values())) for item, _ in scored]
    order = sorted(range(len(scored)), key=lambda n: -values[n])  # stable
    assert blend(scored, relevance, known=False) == [(str(n), values[n]) for n in order]


@given(st.lists(st.tuples(whole, st.one_of(st.none(), whole)), min_size=1, max_size=20))
def test_no_item_that_is_better_in_both_comes_later(
    pairs: list[tuple[float, float | None]],
) -> None:
    scored = [(str(n), score) for n, (score, _) in enumerate(pairs)]
    relevance = told(pairs)
    lowest = min(relevance.values())
    ranked = [item for item, _ in blend(scored, relevance, known=True)]
    assert sorted(ranked) == sorted(item for item, _ in scored)
    value, score = {i: relevance.get(i, lowest) for i, _ in scored}, dict(scored)
    for n, item in enumerate(ranked):
        for later in ranked[n + 1 :]:
            assert not (value[later] > value[item] and score[later] > score[item])


def test_the_blend_is_its_equation() -> None:
    ranked = dict(blend([("a", 4.0), ("b", 0.0), ("c", 2.0)], {"a": 1.0, "b": 3.0}, known=True))
    deviation = 8**0.5 / 3
    s = {"a": 1.5**0.5, "b": -(1.5**0.5), "c": 0.0}
    r = {"a": -2 / 3 / deviation, "b": 4 / 3 / deviation, "c": -2 / 3 / deviation}
    assert ranked == pytest.approx({i: r[i] + WEIGHT * s[i] for i in "abc"})


def test_words_of_a_query_are_found_in_what_the_catalogue_says() -> None:
    catalogue = Catalogue(client=None)
    catalogue.entries["mug"] = Entry("mug", title="Red MUG", category="Kitchen/Mugs", brand="Ox")
    catalogue.entries["pan"] = Entry("pan", title="Pan, reddish", category="Kitchen")
    items = Assortment(catalogue)
    items.refresh()
    matched = match_words(items, "red kitchen OX", ["mug", "pan", "none"])
    assert matched == pytest.approx({"mug": 1, "pan": 1 / 3, "none": 0})
    assert set(match_words(items, "!", ["mug"]).values()) == {0.0}


def test_found_items_are_ranked_by_relevance_and_profile(client: Client, user: str) -> None:
    items = [f"{user}-{n}" for n in range(4)]
    client.put_items([{"item_id": i, "title": f"Mug {i[-1]}x", "category": i} for i in items])
    hits = [{"item_id": i, "relevance": 10.0 - n} for n, i in enumerate(items)]

    def order(name: str, *given: object, **more: str) -> list[str]:
        return [i["item_id"] for i in client.rank(name, list(given), **more)["items"]]

    assert order("a stranger", *reversed(hits), query="mug") == items
    hits[2] = items[2]  # an id alone is less relevant than all others, but not than the last
    assert order("a stranger", *hits) == [items[0], items[1], items[2], items[3]]
    assert order("a stranger", *items, query="mug 3x") == [items[3], *items[:3]]
    client.post_event(purchase(user, items[1]), return_profile=True)
    assert order(user, *({"item_id": i, "relevance": 1} for i in items))[0] == items[1]
    hits = [{"item_id": i, "relevance": float(i != items[1])} for i in items]
    assert order("a stranger", *hits)[-1] == items[1]
    assert client.rank(user, hits)["personalized"]


@pytest.mark.parametrize("relevance", ["1e31", '"3"', "[]"])
def test_a_wrong_relevance_is_refused(api: Api, client: Client, relevance: str) -> None:
    content = f'{{"user_id": "a", "items": [{{"item_id": "b", "relevance": {relevance}}}]}}'
    headers = {"content-type": "application/json"}
    problem = refused(client, "POST", "/v1/rank", content=content, headers=headers)
    assert problem["status"] == 422
    assert any(error["pointer"].endswith("/relevance") for error in problem["errors"])
