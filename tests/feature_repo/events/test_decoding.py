"""The quick way in takes nothing that Pydantic would not, and reads it as the same."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from feature_repo.events import decoding
from feature_repo.events.decoding import decode_event
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import ITEM_TYPES, Event, to_record

PSEUDONYMS = Pseudonyms(b"0123456789abcdef", 16)
VIEW: dict[str, Any] = {"type": "view_item", "user_id": "u", "items": [{"item_id": "A"}]}

texts = st.text(min_size=1, max_size=12)
money = st.floats(0, 1e9) | st.integers(0, 1000)
characters = st.characters(exclude_categories=["Cs"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(characters, max_size=300)
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3)
)
items = st.fixed_dictionaries(
    {"item_id": texts},
    optional={
        "quantity": st.floats(0.01, 1e6) | st.integers(1, 9), "price": money,
        "currency": st.just("EUR"), "category": texts, "brand": texts, "variant": texts,
        "position": st.integers(0, 100_000), "discount": money, "coupon": texts,
    },
)  # fmt: skip
valid = st.fixed_dictionaries(
    {
        "type": st.sampled_from([*sorted(ITEM_TYPES), "login", "spun_the_wheel"]),
        "user_id": texts, "order_id": texts, "rating": st.floats(0, 10),
        "items": st.lists(items, min_size=1, max_size=3),
    },
    optional={
        "id": texts, "anonymous_id": texts, "source": st.text(max_size=9), "session_id": texts,
        "time": st.integers(0, 4_102_444_800_000) | st.sampled_from(
            ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456+02:00", 1.7e9, 1_700_000_000.25]
        ),
        "value": st.floats(-1e12, 1e12) | st.integers(-5, 5), "currency": st.just("JPY"),
        "coupon": texts, "query": texts, "url": texts, "device": texts, "channel": texts,
        "tz": st.sampled_from(["Europe/Berlin", "UTC"]), "recommendation_id": texts,
        "campaign_id": texts, "placement": texts,
        "consent": st.dictionaries(texts, st.booleans(), max_size=3),
        "properties": st.dictionaries(texts, values, max_size=3),
    },
)  # fmt: skip
# What JSON can say and a generator of Python values does not.
spellings = st.sampled_from(
    [b"-0", b"-0.0", b"1E3", b"1e-400", b"1e400", b"5.0", b"5.5", b"NaN", b"Infinity", b"null",
     b"[]", b"9" * 25, b"-" + b"9" * 19, b"9" * 400, b"true", b'"5"', b'""', b'"EUR\\n"', b'"a\\n"',
     b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\\u0000"', b"{}", b'{"a":NaN}',
     b'{"a":1e400}', b'{"a":' + b"9" * 25 + b"}", b'{"a":1,"a":2}', b'{"a":[[[[[1]]]]]}',
     b'{"":true}', b'{"a":1}', b'{"a":"true"}', b"[" * 300]
)  # fmt: skip


def read(validate: Any, document: Any) -> bytes | None:
    try:
        event = validate(document)
    except ValidationError:
        return None
    return None if event is None else stored(event)


def stored(event: Event) -> bytes:
    record = to_record(event, PSEUDONYMS, received_ms=1)
    if event.id is None:
        record.id = "made"
    return record.encode()


def agree(document: bytes) -> bytes | None:
    """Check one document against Pydantic, as a batch's and as a single one."""
    quick = read(decode_event, document)
    if quick is not None:
        assert quick == read(Event.model_validate_json, document)
        assert quick == read(Event.model_validate, orjson.loads(document))
    return quick


@given(valid)
@settings(max_examples=200)
def test_what_is_plainly_valid_is_read_quickly_and_as_pydantic_reads_it(
    event: dict[str, Any],
) -> None:
    document = json.dumps(event, ensure_ascii=False).encode()
    assert agree(document) == read(Event.model_validate_json, document)


@given(valid, st.sampled_from(sorted(Event.model_fields)), values)
@settings(max_examples=300)
def test_a_field_of_any_kind(event: dict[str, Any], name: str, value: Any) -> None:
    line = event["items"][0] | {name: value}
    rest = {k: v for k, v in event.items() if k != name}
    for document in (event | {name: value}, event | {"items": [line]}, rest):
        agree(json.dumps(document).encode())


@given(st.sampled_from([*sorted(Event.model_fields), "item", "surprise"]), spellings)
@settings(max_examples=300)
def test_a_field_spelled_in_any_way(name: str, spelling: bytes) -> None:
    body = orjson.dumps({k: v for k, v in VIEW.items() if k != name})
    agree(body[:-1] + b',"' + name.encode() + b'":' + spelling + b"}")
    agree(b'{"' + name.encode() + b'":' + spelling + b"," + orjson.dumps(VIEW)[1:])
    line = b'{"item_id":"A","quantity":' + spelling + b',"position":' + spelling + b"}"
    agree(body.replace(b'{"item_id":"A"}', line))


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_what_is_no_json_is_left_to_pydantic(document: bytes) -> None:
    assert agree(document) is None


@pytest.mark.parametrize(
    "change",
    [
        {"type": "purchase"}, {"type": "rate_item"}, {"items": []}, {"user_id": None},
        {"tz": "Mars/Base"}, {"time": "soon"}, {"properties": {"a": "x" * 9000}},
        {"properties": {"a": {"b": {"c": {"d": {}}}}}}, {"surprise": 1}, {"user_id": "u" * 129},
    ],
)  # fmt: skip
def test_rules_over_the_whole_event_hold(change: dict[str, Any]) -> None:
    document = orjson.dumps(VIEW | change)
    assert decode_event(document) is None
    with pytest.raises(ValidationError):
        Event.model_validate_json(document)


def test_numbers_in_properties_are_finite_and_fit_64_bits() -> None:
    huge = b'{"type":"login","user_id":"u","properties":{"n":' + b"9" * 25 + b"}}"
    for event in (decode_event(huge), Event.model_validate_json(huge)):
        assert event is not None
        assert event.properties == {"n": 1e25}
    for wrong in (b"NaN", b"-Infinity", b"1e400", b"9" * 400):
        document = huge.replace(b"9" * 25, wrong)
        assert decode_event(document) is None
        with pytest.raises(ValidationError):
            Event.model_validate_json(document)


def test_no_rule_of_the_schema_is_left_out() -> None:
    """A new validator of `Event` must be taken up by `decode_event`, then named here."""
    found = Event.__pydantic_decorators__
    assert set(found.field_validators) == {"_tz", "_properties"}
    assert set(found.model_validators) == {"_whole"}

    class Unheard(BaseModel):
        number: int = Field(multiple_of=3)

    with pytest.raises(TypeError, match="no quick form"):
        decoding._struct(Unheard)
