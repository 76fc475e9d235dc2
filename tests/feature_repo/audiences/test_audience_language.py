"""Definitions of audiences: what is refused and where, what is kept, and how it is planned."""

from typing import Any

import jsonschema
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.audiences import language, plain_yaml, references
from feature_repo.audiences.plan import plan
from feature_repo.errors import InvalidRuleError
from feature_repo.events.pseudonyms import Pseudonyms

BOUGHT: dict[str, Any] = {"event": {"type": "purchase"}}
STAGE: dict[str, Any] = {"trait": {"name": "lifecycle.stage", "eq": "active"}}
OVERDUE: dict[str, Any] = {"trait": {"name": "habits.overdue", "gt": 1.5}}

EXAMPLE = """
title: Tea drinkers who stopped
rule:
  all:
    - event: {type: purchase, where: {category: Food/Tea}, count: {gte: 3}, within: 91d}
    - not: {event: {type: purchase, between: [2026-01-01, 2026-02-01]}}
    - sequence: {start: {type: add_to_cart}, then: {type: purchase}, within: 1d}
    - any:
        - trait: {name: lifecycle.stage, in: [active, at_risk]}
        - score: {name: interest, top: 10}
consent: [email]
exclude:
  - event: {type: message_sent, count: {gte: 3}, within: 7d}
"""


def audience(rule: Any, **more: Any) -> dict[str, Any]:
    return {"rule": rule, "consent": [], **more}


def errors(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRuleError) as caught:
        language.read(document)
    return [(each["pointer"], each["detail"]) for each in caught.value.errors]


def test_yaml_and_json_say_the_same_and_are_shown_as_they_were_read() -> None:
    definition = language.read_text(EXAMPLE)
    assert language.read(language.to_document(definition)) == definition
    assert language.to_document(definition)["rule"]["all"][1]["not"]["event"]["between"] == [
        "2026-01-01",
        "2026-02-01",
    ]


def test_the_json_schema_accepts_what_is_accepted() -> None:
    schema = language.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    shown = language.to_document(language.read_text(EXAMPLE))
    jsonschema.validate(shown, schema)
    shown["rule"]["all"][0]["event"]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(shown, schema)


@pytest.mark.parametrize(
    ("rule", "pointer", "said"),
    [
        ({"event": {"type": "Buy"}}, "/rule/event/type", "pattern"),
        ({"event": {}}, "/rule/event/type", "required"),
        ({"event": 5}, "/rule/event", "an object"),
        ({"bought": 1}, "/rule", "one key of all, any"),
        ({"all": [BOUGHT], "any": [BOUGHT]}, "/rule", "one key"),
        ({"all": []}, "/rule/all", "at least 1"),
        ({"all": [BOUGHT, {"not": {"audience": "A b"}}]}, "/rule/all/1/not/audience", "pattern"),
        ({"any": [{"trait": {"name": "lifecycle.stge", "eq": "new"}}]},
         "/rule/any/0/trait/name", "did you mean lifecycle.stage"),
        ({"trait": {"name": "lifecycle.stage", "gte": 1}}, "/rule/trait", "gte does not fit"),
        ({"trait": {"name": "event_count", "eq": True}}, "/rule/trait", "eq does not fit"),
        ({"trait": {"name": "lifecycle.stage", "eq": "gone"}}, "/rule/trait", "never 'gone'"),
        ({"trait": {"name": "event_count"}}, "/rule/trait", "nothing is asked"),
        ({"event": {**BOUGHT["event"], "within": "3y"}}, "/rule/event/within", "not a duration"),
        ({"event": {**BOUGHT["event"], "between": ["2026-02-01", "2026-01-01"]}},
         "/rule/event", "from before to"),
        ({"event": {**BOUGHT["event"], "count": {}}}, "/rule/event/count", "bound is missing"),
        ({"event": {**BOUGHT["event"], "count": {"gte": 1}, "last": {"lt": 3}}},
         "/rule/event", "count and last"),
        ({"event": {**BOUGHT["event"], "where": {"category": 5}}},
         "/rule/event/where/category", "list"),
        ({"event": {**BOUGHT["event"], "where": {"price": {"gte": float("nan")}}}},
         "/rule/event/where/price/gte", "finite"),
        ({"score": {"name": "interest"}}, "/rule/score", "either gte"),
        ({"entities": ["someone"]}, "/rule/entities", "not a pseudonym"),
    ],
)  # fmt: skip
def test_an_error_points_at_its_node(rule: Any, pointer: str, said: str) -> None:
    found = errors(audience(rule))
    assert [place for place, _ in found] == [pointer]
    assert said in found[0][1]


def test_consent_has_to_be_said_and_unknown_keys_are_errors() -> None:
    assert errors({"rule": BOUGHT}) == [("/consent", "this is required")]
    assert errors(audience(BOUGHT, colour="red")) == [("/colour", "there is no such key here")]
    assert errors([])[0][0] == ""


def test_too_deep_and_too_large_are_refused_without_reading_on() -> None:
    deep: Any = BOUGHT
    for _ in range(60):
        deep = {"not": deep}
    assert "levels" in errors(audience(deep))[0][1]
    assert "values" in errors(audience({"user_ids": ["u"] * 30_000}))[0][1]


SEQUENCE: dict[str, Any] = {
    "sequence": {"start": {"type": "view_item"}, "then": {"type": "purchase"}}
}


def any_of(leaf: dict[str, Any], count: int) -> dict[str, Any]:
    groups = [{"any": [leaf] * min(50, count - n)} for n in range(0, count, 50)]
    return {"any": groups}


@pytest.mark.parametrize(
    ("leaf", "count", "why"),
    [
        (SEQUENCE, references.MAX_SEQUENCES, None),
        (SEQUENCE, references.MAX_SEQUENCES + 1, "the rule has 21 sequences: at most 20"),
        (SEQUENCE, 170, "the rule has 170 sequences: at most 20"),
        (BOUGHT, references.MAX_EVENT_LEAVES, None),
        (BOUGHT, 51, "the rule has 51 leaves on events: at most 50"),
        (BOUGHT, 1_000, "the rule has 1,000 leaves on events: at most 50"),
        (OVERDUE, 2_100, "nodes: at most 2,000"),
    ],
)
def test_a_rule_that_asks_for_too_much_is_refused(
    leaf: dict[str, Any], count: int, why: str | None
) -> None:
    rule = {"all": [BOUGHT, any_of(leaf, count)]} if leaf is OVERDUE else any_of(leaf, count)
    definition = language.read(audience(rule))
    if why is None:
        references.check_references("big", definition, {})
        return
    with pytest.raises(InvalidRuleError, match=why):
        references.check_references("big", definition, {})


def test_audiences_name_each_other_ten_levels_deep_at_most() -> None:
    known = {"a0": language.read(audience(BOUGHT))}
    for n in range(1, references.MAX_LEVELS):
        known[f"a{n}"] = language.read(audience({"audience": f"a{n - 1}"}))
        references.check_references(f"a{n}", known[f"a{n}"], known)
    deeper = language.read(audience({"audience": "a9"}))
    with pytest.raises(InvalidRuleError, match=r"11 levels of audiences .* at most 10"):
        references.check_references("a10", deeper, known)
    # Nor may a change below make those deeper, or dearer, that rest on it.
    other = {"other": language.read(audience(BOUGHT))}
    with pytest.raises(InvalidRuleError, match="a9, which rests on it, has 11 levels"):
        references.check_references(
            "a0", language.read(audience({"audience": "other"})), {**known, **other}
        )
    twice = {"top": language.read(audience({"all": [{"audience": "x"}, {"audience": "x"}]}))}
    with pytest.raises(InvalidRuleError, match="top, which rests on it, has 22 sequences"):
        references.check_references("x", language.read(audience(any_of(SEQUENCE, 11))), twice)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [x, x]\nb: *a", "line 1: anchors and aliases"),
        ("a: 1\nb: [*a]", "line 2: anchors and aliases"),
        ("<<: {a: 1}\nb: 2", r"line 1: merge keys \(<<\)"),
        ("a: !!bool foo", r"line 1: tags \(!, !!\)"),
        ("a: 1\nb: ! {}", r"line 2: tags \(!, !!\)"),
        ("rule: " + "[" * 60_000, "over 40 levels"),
        ("\n".join(" " * n + "a:" for n in range(300)), "over 40 levels"),
        ("{" + "a," * 30_000, "over 20,000 values"),
        ("# " + "x" * plain_yaml.MAX_BYTES, "takes 65,538 bytes: at most 65,536; send JSON"),
    ],
)
def test_yaml_that_could_grow_is_refused_naming_the_line_and_the_bound(text: str, why: str) -> None:
    with pytest.raises(InvalidRuleError, match=why):
        language.read_text(text)


def test_a_definition_too_long_for_yaml_is_read_as_json() -> None:
    users = [f"user-{n}" for n in range(9_000)]
    text = orjson.dumps(audience({"user_ids": users}))
    assert len(text) > plain_yaml.MAX_BYTES
    assert language.to_document(language.read_text(text))["rule"] == {"user_ids": users}


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab: -#", max_size=6)
    | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner),
    max_leaves=12,
))  # fmt: skip
def test_what_yaml_writes_without_references_is_read_as_it_was(document: Any) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump(document, Dumper=Plain)
    found = plain_yaml.read(text, max_depth=40, max_values=20_000)
    assert found == document


words = st.one_of(
    st.text("0123456789.:-+_eExbofainyN~ ", max_size=12), st.floats().map(str),
    st.integers(-(10**40), 10**40).map(str),
    st.builds("".join, st.lists(st.sampled_from(["1:", "0x", "-", "9", ".", "5"]), max_size=400)),
    st.builds("!!{} {}".format, st.sampled_from(["bool", "int", "timestamp", "binary", "set", "x"]),
              st.sampled_from(["", '""', "foo", "{a}", "[1]", "2024-99-99", "1:1"])),
)  # fmt: skip


@given(words, st.sampled_from(["a: {}", "- {}", "{{{}: 1}}", "{}"]))
def test_a_word_of_yaml_is_a_plain_value_or_refused(word: str, form: str) -> None:
    try:
        found = plain_yaml.read(form.format(word), max_depth=40, max_values=20_000)
    except InvalidRuleError:
        return
    (value,) = (found.values() if isinstance(found, dict) else [found]) if found else [found]
    while isinstance(value, dict | list):
        value = next(iter(value.values() if isinstance(value, dict) else value), None)
    assert value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize(
    ("word", "read"),
    [("2024-01-01", "2024-01-01"), ("8:30", "8:30"), ("1:1.5", "1:1.5"), ("9" * 99, "9" * 99),
     ("1_000", 1000), ("0x1F", 31), ("010", 8), ("-1.5e+3", -1500.0), (".5", 0.5), ("on", True),
     ("~", None), ("'1'", "1"), ("=", "=")],
)  # fmt: skip
def test_what_a_word_of_yaml_is(word: str, read: object) -> None:
    assert plain_yaml.read(f"a: {word}", max_depth=40, max_values=20_000) == {"a": read}


@pytest.mark.parametrize("text", ["rule: [", "\x00", "{a: {b}: c}", "2026-13-45: ["])
def test_text_that_is_no_yaml(text: str) -> None:
    with pytest.raises(InvalidRuleError):
        language.read_text(text)


@pytest.mark.parametrize(
    "rule",
    [
        OVERDUE,
        {"not": {"trait": {"name": "habits.overdue", "lte": 1}}},
        {"any": [OVERDUE, BOUGHT]},
        {"all": [OVERDUE, {"any": [OVERDUE, BOUGHT]}]},
        {"not": {"all": [OVERDUE, BOUGHT]}},
    ],
)
def test_overdue_alone_targets_nobody(rule: Any) -> None:
    assert "alone" in errors(audience(rule))[0][1]


@pytest.mark.parametrize(
    "rule", [{"all": [OVERDUE, BOUGHT]}, {"not": {"any": [OVERDUE, BOUGHT]}}, {"any": [BOUGHT]}]
)
def test_overdue_beside_something_else_is_accepted(rule: Any) -> None:
    language.read(audience(rule))


def test_references_must_exist_and_make_no_ring() -> None:
    one = language.read(audience({"audience": "two"}))
    two = language.read(audience({"any": [BOUGHT, {"not": {"audience": "one"}}]}))
    with pytest.raises(InvalidRuleError, match="no audience is named two"):
        references.check_references("one", one, {})
    with pytest.raises(InvalidRuleError, match="/rule/any/1/not/audience: one in turn"):
        references.check_references("two", two, {"one": one})
    with pytest.raises(InvalidRuleError, match="in turn"):
        references.check_references("two", one, {})
    references.check_references("one", one, {"two": language.read(audience(BOUGHT))})


def test_audiences_that_name_each_other_over_and_over_are_too_large() -> None:
    known = {"a0": language.read(audience({"all": [STAGE] * 40}))}
    for number in range(1, 6):
        body = audience({"all": [{"audience": f"a{number - 1}"}] * 3})
        known[f"a{number}"] = language.read(body)
    references.check_references("a3", known.pop("a3"), {n: known[n] for n in ("a0", "a1", "a2")})
    known["a3"] = language.read(audience({"all": [{"audience": "a2"}] * 3}))
    with pytest.raises(InvalidRuleError, match="nodes: at most"):
        references.check_references("a5", known.pop("a5"), known)


def test_user_ids_are_stored_as_pseudonyms() -> None:
    pseudonyms = Pseudonyms(b"0123456789abcdef", 16)
    rule = {"all": [BOUGHT, {"not": {"user_ids": ["123", "7"]}}]}
    body = audience(rule, exclude=[{"user_ids": ["9"]}])
    kept = language.to_document(language.pseudonymous(language.read(body), pseudonyms))
    assert kept["rule"]["all"][1]["not"] == {
        "entities": [pseudonyms.of_user("123"), pseudonyms.of_user("7")]
    }
    assert "user_ids" not in yaml.safe_dump(kept)


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"event": {"type": "purchase", "within": "28d"}}, "/rule/event"),
        ({"event": {"type": "purchase", "where": {"brand": "Ox"}}}, "/rule/event"),
        ({"event": {"type": "view_item", "last": {"lt": 3}}}, "/rule/event"),
        ({"event": {"type": "try_on"}}, "/rule/event"),
        ({"event": {"type": "purchase", "sum": {"gte": 3}}}, "/rule/event"),
        ({"any": [BOUGHT, {"score": {"name": "interest", "top": 5}}]}, "/rule/any/1/score"),
        ({"trait": {"name": "rfm_recency_quintile", "gte": 4}}, "/rule/trait"),
        ({"not": {"audience": "slow"}}, "/rule/not/audience"),
    ],
)
def test_a_batch_rule_says_which_node_makes_it_one(rule: Any, pointer: str) -> None:
    slow = language.read(audience({"score": {"name": "interest", "gte": 0}}))
    found = plan(language.read(audience(rule)), {"slow": slow})
    assert (found["mode"], [r["pointer"] for r in found["reasons"]]) == ("batch", [pointer])


def test_exclusions_make_a_rule_batch_too() -> None:
    fatigue = {"event": {"type": "message_sent", "within": "7d"}}
    found = plan(language.read(audience(BOUGHT, exclude=[fatigue])), {})
    assert [r["pointer"] for r in found["reasons"]] == ["/exclude/0/event"]
    assert found["time_passes"]


def test_real_time_rules() -> None:
    rule = {"all": [BOUGHT, {"not": {"trait": {"name": "event_count", "gt": 3}}}]}
    found = plan(language.read(audience(rule, consent=["email"])), {})
    assert found == {"mode": "realtime", "reasons": [], "time_passes": False}
    stage = {"trait": {"name": "lifecycle.stage", "eq": "lapsed"}}
    assert plan(language.read(audience(stage)), {})["time_passes"]
