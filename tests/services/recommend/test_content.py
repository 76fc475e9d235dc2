"""What is described alike is near, rare terms more than common ones."""

import numpy as np
import pytest

from feature_repo.archive.catalogue import pack_vector
from services.catalogue.catalogue import Catalogue, Entry
from services.recommend.assortment import Assortment
from services.recommend.content import Neighbours, nearness, words

KNOWN = {
    "mug": Entry("mug", title="Red mug", category="Kitchen/Mugs", brand="A", price=4.0),
    "cup": Entry("cup", title="Blue CUP", category="Kitchen/Cups", brand="B", price=5.0),
    "bag": Entry("bag", title="Jumbo bag red retrospot", category="Bags", brand="A", price=2.0),
    "case": Entry("case", title="Case, blue", category="Bags", brand="B", price=40.0),
    "plain": Entry("plain"),
}


def shop(*more: Entry) -> tuple[Catalogue, Assortment]:
    catalogue = Catalogue(client=None)
    catalogue.entries.update(KNOWN)
    catalogue.entries.update({entry.item_id: entry for entry in more})
    catalogue.changes += 1
    items = Assortment(catalogue, list(KNOWN))
    items.refresh()
    return catalogue, items


def near(entry: Entry) -> dict[str, float]:
    _, items = shop(entry)
    found = nearness(items, items.row[entry.item_id], items.known)()
    return dict(zip(KNOWN, found.tolist(), strict=True))


def test_words_are_whole_words_of_any_case() -> None:
    assert words("Jumbo BAG, red & jumbo x") == ["jumbo", "bag", "red"]
    found = near(Entry("new", title="retrospot jumbo"))
    assert found == pytest.approx({"mug": 0, "cup": 0, "bag": 1, "case": 0, "plain": 0})
    assert near(Entry("new", title="retro (jum"))["bag"] == 0
    assert near(Entry("new", title="cup"))["cup"] == pytest.approx(1)


@pytest.mark.parametrize("price", [5e-324, 1e-300, 1e300])
def test_a_price_out_of_all_proportion_is_near_no_other(price: float) -> None:
    assert near(Entry("new", price=price)) == dict.fromkeys(KNOWN, 0.0)


def test_nearness_is_the_share_of_what_is_known_of_the_item() -> None:
    found = near(Entry("new", title="red lamp", category="Kitchen/Lamps", brand="A", price=4.4))
    idf = {n: np.log((2 + 5) / (1 + n)) for n in range(6)}
    # red 2, lamp 0, Kitchen 2, Kitchen/Lamps 0, brand A 2, price within a factor of root two 2
    whole = 4 * idf[2] + 2 * idf[0]
    assert found["mug"] == pytest.approx(4 * idf[2] / whole)
    assert found["cup"] == pytest.approx(2 * idf[2] / whole)
    assert found["bag"] == pytest.approx(2 * idf[2] / whole)
    assert found["case"] == 0
    assert found["plain"] == 0


def test_a_rare_word_says_more_than_a_common_one() -> None:
    found = near(Entry("new", title="red retrospot blue"))
    assert found["bag"] > found["mug"] == found["cup"]


def test_an_item_of_which_nothing_is_known_is_near_nothing() -> None:
    assert set(near(Entry("new")).values()) == {0.0}


def test_neighbours_are_found_aside_and_follow_an_edit() -> None:
    catalogue, items = shop(Entry("new", title="retrospot"))
    neighbours = Neighbours(items)
    row = items.row["new"]
    assert len(neighbours.of(row)[0]) == 0  # nobody waits for it
    neighbours.settle()
    assert [items.ids[n] for n in neighbours.of(row)[0]] == ["bag"]
    catalogue.entries["new"] = Entry("new", title="case")
    catalogue.changes += 1
    items.refresh()
    row = items.row["new"]
    neighbours.of(row)
    neighbours.settle()
    rows, weight = neighbours.of(row)
    assert [items.ids[n] for n in rows] == ["case"]
    assert weight.tolist() == [1.0]


def test_what_is_asked_for_while_others_are_found_comes_next() -> None:
    new = [Entry(f"n{n}", title=title) for n, title in enumerate(["jumbo", "blue", "red"] * 40)]
    _, items = shop(*new)
    neighbours = Neighbours(items)
    rows = np.array([items.row[each.item_id] for each in new])
    values = np.arange(5.0)
    assert set(neighbours.mean(rows, values, -1.0).tolist()) == {-1.0}
    neighbours.settle()
    for row in rows.tolist():
        near = nearness(items, row, items.known)()
        best, weight = neighbours.of(row)
        expected = near[best] ** 2 / (near[best] ** 2).sum()
        assert set(best.tolist()) == set(np.flatnonzero(near).tolist())
        assert weight.tolist() == pytest.approx(expected.tolist())
    assert neighbours.mean(rows, values, -1.0).min() >= 0


def test_of_items_with_vectors_a_third_of_the_nearness_is_the_cosine() -> None:
    new = Entry("new", title="red lamp", category="Kitchen/Lamps", brand="A", price=4.4)
    plain = near(new)
    catalogue, items = shop(new)
    vectors = {"mug": [0, 1], "cup": [1, 1], "case": [-1, 0], "new": [2, 0]}
    catalogue.vectors.take({item: pack_vector(v) for item, v in vectors.items()})
    found = nearness(items, items.row["new"], items.known)()
    expected = plain | {
        item: (2 * plain[item] + cosine) / 3
        for item, cosine in {"mug": 0, "cup": 0.5**0.5, "case": 0}.items()
    }
    assert dict(zip(KNOWN, found, strict=True)) == pytest.approx(expected, abs=5e-3)


def test_neighbours_follow_a_vector() -> None:
    catalogue, items = shop(Entry("new"))
    neighbours, row = Neighbours(items), items.row["new"]

    def first() -> str:
        neighbours.of(row)
        neighbours.settle()
        return items.ids[neighbours.of(row)[0][0]]

    for item in ("bag", "cup"):
        ways = {"bag": [1, 0], "cup": [0, 1]}
        given = {**ways, "new": ways[item]}
        catalogue.vectors.take({i: pack_vector(v) for i, v in given.items()})
        assert first() == item
