"""Rules: what each lets through, how they join and give way, and what a wrong file is told."""

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_repo.errors import InvalidSettingError
from services.catalogue.catalogue import Catalogue, Entry
from services.http.answer_schemas import RelaxedRule
from services.recommend import rule_book
from services.recommend.assortment import Assortment
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.recommender import Recommender
from services.recommend.rule_fallback import STEPS, relax
from services.recommend.rules import DAY_MS, Rules, boosts, mask_allowed
from tests.services.recommend.shoppers import shopper_with

NOW = 1_700_000_000_000
PATHS = ("A", "A/x", "A/x/1", "A/y", "B", "B/x", "AB/x", None)
BRANDS = ("p", "q", None)


def shop(size: int = 60) -> Catalogue:
    catalogue = Catalogue(client=None)
    for n in range(size):
        item = f"i{n:02d}"
        catalogue.entries[item] = Entry(
            item, category=PATHS[n % len(PATHS)], brand=BRANDS[n % 3],
            price=None if n % 7 == 0 else float(n), in_stock=n % 11 != 0,
            available_from=NOW - n * DAY_MS if n % 5 == 0 else None,
        )  # fmt: skip
        if n % 4 == 0:
            catalogue.added_ms[item] = NOW - n * DAY_MS
    return catalogue


CATALOGUE = shop()
SHOPPER = shopper_with(
    interests=(),
    purchased=["i01", "i02", "i03", "i13", "i17"],
    seen=["i01", "i03"],
    refused=["i05"],
)


def below(path: str | None, names: list[str]) -> bool:
    return path is not None and any(path == n or path.startswith(n + "/") for n in names)


def naive(entry: Entry, rules: Rules) -> bool:
    """The rules once more, item by item, as the page states them."""
    out = set(rules.exclude) | set(SHOPPER.refused)
    out |= set(SHOPPER.purchased) if "purchased" in rules.exclude else set()
    out |= set(SHOPPER.seen) if "seen" in rules.exclude else set()
    if entry.item_id in out or (rules.in_stock and not entry.in_stock):
        return False
    if entry.item_id in SHOPPER.purchased:
        named = [c for c in rules.repeat.categories if below(entry.category, [c])]
        nearest = max(named, key=len, default=None)
        if not (rules.repeat.allowed if nearest is None else rules.repeat.categories[nearest]):
            return False
    within, without = rules.category.within, rules.category.out
    if (within is not None and not below(entry.category, within)) or below(entry.category, without):
        return False
    if rules.brand.within is not None and entry.brand not in rules.brand.within:
        return False
    if entry.brand in rules.brand.out:
        return False
    if rules.price is not None:
        low = rules.price.min or 0.0
        high = math.inf if rules.price.max is None else rules.price.max
        if entry.price is None or not low <= entry.price <= high:
            return False
    since = entry.available_from or CATALOGUE.added_ms.get(entry.item_id)
    days = rules.max_age_days
    return days is None or (since is not None and since >= NOW - days * DAY_MS)


_among = st.fixed_dictionaries(
    {}, optional={"in": st.lists(st.sampled_from(["A", "A/x", "B", "nowhere"]), max_size=2),
                  "out": st.lists(st.sampled_from(["A/x", "B/x"]), max_size=1)},
)  # fmt: skip
_rules = st.fixed_dictionaries(
    {},
    optional={
        "exclude": st.lists(st.sampled_from(["purchased", "seen", "i07", "gone"]), max_size=3),
        "category": _among,
        "brand": st.sampled_from([{"in": ["p"]}, {"out": ["q"]}, {"in": []}, {"in": ["none"]}]),
        "price": st.sampled_from([{"min": 10}, {"max": 30}, {"min": 5, "max": 25}]),
        "in_stock": st.booleans(),
        "max_age_days": st.sampled_from([5, 20, 1000]),
        "repeat": st.sampled_from(
            [{"allowed": False}, {"categories": {"A": False, "A/x": True}},
             {"allowed": False, "categories": {"B": True}}]
        ),
    },
)  # fmt: skip


@given(_rules)
def test_what_is_allowed_is_what_the_rules_say_of_each_item(given_rules: dict[str, Any]) -> None:
    rules = Rules.model_validate(given_rules)
    items = Assortment(CATALOGUE)
    items.refresh()
    mask = mask_allowed(items, rules, SHOPPER, NOW)
    found = {item for item, fine in zip(items.ids, mask, strict=True) if fine}
    assert found == {e.item_id for e in CATALOGUE.entries.values() if naive(e, rules)}


@given(_rules)
def test_rules_give_way_in_the_stated_order_and_never_shrink_what_is_left(
    given_rules: dict[str, Any],
) -> None:
    rules = Rules.model_validate(given_rules)
    items = Assortment(CATALOGUE)
    items.refresh()
    before, names = mask_allowed(items, rules, SHOPPER, NOW), list[str]()
    for name, wider in relax(rules):
        after = mask_allowed(items, wider, SHOPPER, NOW)
        assert (after | ~before).all()
        before = after
        names.append(name)
    order = [name for name, _ in STEPS]
    assert names == [name for name in order if name in names]


def recommender(catalogue: Catalogue | None = None) -> Recommender:
    made = Recommender(catalogue or shop())
    made.set_popular([(f"i{n:02d}", 100.0 - n) for n in range(60)])
    return made


def ranked(rules: Rules, n: int = 5, **request: Any) -> tuple[list[str], list[str]]:
    ranking = recommender().rank(SHOPPER, RecommendationRequest(n, rules=rules, **request), NOW)
    return [entry["item_id"] for entry in ranking.items], ranking.relaxed


def test_a_list_that_rules_empty_falls_back_and_says_so() -> None:
    both = Rules.model_validate({"category": {"in": ["A/z"]}, "price": {"min": 1000}})
    found, gave_way = ranked(both)
    assert gave_way == ["price", "category.in: department"]
    assert found
    assert all((CATALOGUE.entries[item].category or "").split("/")[0] == "A" for item in found)
    found, gave_way = ranked(Rules.model_validate({"category": {"in": ["nowhere"]}}))
    assert (bool(found), gave_way) == (True, ["category.in"])
    strict = both.model_copy(update={"fallback": False})
    assert ranked(strict) == ([], [])
    assert ranked(Rules.model_validate({"category": {"in": ["A"]}}))[1] == []


def test_what_must_not_be_shown_never_gives_way() -> None:
    everything = [f"i{n:02d}" for n in range(60)]
    assert ranked(Rules(exclude=everything)) == ([], [])
    out = Rules.model_validate({"category": {"out": ["A", "B", "AB"]}, "price": {"min": 1000}})
    found, _ = ranked(out, n=60)
    assert found
    assert {CATALOGUE.entries[item].category for item in found} == {None}


def test_boost_and_bury_multiply() -> None:
    items = Assortment(CATALOGUE)
    items.refresh()
    rules = Rules.model_validate(
        {"boost": [{"category": "A", "factor": 3},
                   {"category": "A/x", "factor": 2}, {"brand": "q", "factor": 0.5},
                   {"item_id": "i01", "factor": 4}, {"item_id": "gone", "factor": 9}]}
    )  # fmt: skip
    amount = boosts(items, rules)
    assert amount is not None
    factors = np.exp(amount)
    assert factors[items.row["i01"]] == pytest.approx(3 * 2 * 0.5 * 4)  # A/x, q
    assert factors[items.row["i02"]] == pytest.approx(3 * 2)  # A/x/1, no brand
    assert factors[items.row["i00"]] == pytest.approx(3)
    assert factors[items.row["i04"]] == pytest.approx(0.5)  # B, q
    plain = ranked(Rules(), n=60)[0]
    buried = ranked(Rules.model_validate({"boost": [{"item_id": plain[0], "factor": 0.01}]}), 60)[0]
    assert buried[-5:].count(plain[0]) == 1
    assert [i for i in buried if i != plain[0]] == plain[1:]


def test_a_list_that_is_chosen_aside_is_of_the_items_as_they_were() -> None:
    catalogue = shop()
    made, rules = (
        recommender(catalogue),
        Rules.model_validate({"diversity": 1, "cap": {"brand": 9}}),
    )
    request = RecommendationRequest(20, rules=rules)
    expected = made.rank(SHOPPER, request, NOW).items
    steps = made.ranking(SHOPPER, request, NOW)
    choosing = next(steps)
    catalogue.entries = {f"a{n}": Entry(f"a{n}", category="B", brand="p") for n in range(9)}
    catalogue.changes += 1  # everything is another, and in other rows
    made.warm()
    with pytest.raises(StopIteration) as end:
        steps.send(choosing.choose())
    assert end.value.value.items == expected


@pytest.mark.parametrize(
    ("rules", "n", "long"),
    [
        ({}, 500, False), ({"diversity": 0.5}, 10, False), ({"diversity": 0.5}, 500, True),
        ({"cap": {"brand": 1}}, 10, False), ({"cap": {"brand": 1}}, 500, True),
        ({"explore": {"share": 0.1}}, 10, False), ({"explore": {"share": 0.1}}, 500, True),
        ({"explore": {"share": 0.1, "by": "thompson"}}, 10, True),
        ({"explore": {"share": 0, "by": "thompson"}}, 500, False),
    ],
)  # fmt: skip
def test_what_takes_long_says_so(rules: dict[str, Any], n: int, long: bool) -> None:
    request = RecommendationRequest(n, rules=Rules.model_validate(rules))
    assert next(recommender().ranking(SHOPPER, request, NOW)).long is long


def test_nearer_rules_replace_and_exclusions_add_up() -> None:
    far = Rules.model_validate({"exclude": ["purchased"], "price": {"max": 5}, "diversity": 0.3})
    near = Rules.model_validate({"exclude": ["i1"], "diversity": 0})
    joined = far.under(near)
    assert joined.exclude == ["purchased", "i1"]
    assert (joined.price, joined.diversity) == (far.price, 0.0)
    assert far.under(Rules()) is far


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": {"min": 5, "max": 4}}, {"price": {}}, {"boost": [{"factor": 2}]},
        {"boost": [{"brand": "a", "category": "b", "factor": 2}]}, {"diversity": 2},
        {"boost": [{"brand": "a", "factor": 0}]}, {"explore": {"share": -1}}, {"caps": {}},
        {"cap": {"brand": 0}}, {"max_age_days": float("nan")},
    ],
)  # fmt: skip
def test_wrong_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(wrong)


def test_a_rule_book_gives_a_placement_its_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "default: {exclude: [purchased], diversity: 0.2}\n"
        "placements:\n  home: {price: {max: 9}}\n  cart: {diversity: 0, in_stock: false}\n"
    )
    book = rule_book.load(path)
    assert book.rules(None, None) == book.rules("unheard-of", None) == book.default
    home = book.rules("home", None)
    assert home.price is not None
    assert (home.price.max, home.diversity, home.exclude) == (9.0, 0.2, ["purchased"])
    assert book.rules("cart", Rules(diversity=0.9)).diversity == 0.9
    assert book.rules("cart", None).in_stock is False
    assert rule_book.load(None) is rule_book.EMPTY
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert rule_book.load(empty) == rule_book.EMPTY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("default: [", "line 1"),
        ("placements:\n  home:\n    price: {min: 3, max: 2}\n",
         "/placements/home/price: min 3 is over max 2"),
        ("default: {divresity: 1}\n", "/default/divresity: Extra inputs are not permitted"),
        ("default: {cap: {brand: many}}\n", "/default/cap/brand: Input should be a valid integer"),
        ("- 1\n", "/: Input should be a valid dictionary"),
        ("a: &x [*x]\nb: !!python/object:os.system {}\n", "rules.yaml"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_rules_is_told_where(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSettingError) as caught:
        rule_book.load(path)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message


def test_a_file_of_rules_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="cannot be read: No such file"):
        rule_book.load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSettingError, match="not UTF-8"):
        rule_book.load(tmp_path / "bytes.yaml")


def test_an_answer_names_just_the_rules_that_give_way() -> None:
    assert tuple(name for name, _ in STEPS) == get_args(RelaxedRule)
