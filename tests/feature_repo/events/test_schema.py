"""The event schema: what it takes, what it refuses and where it says so."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_repo.events.fields import parse_time
from feature_repo.events.placeholder_ids import is_nobody
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import (
    ITEM_TYPES,
    Event,
    EventRecord,
    iso,
    pointer,
    problems,
    record_to_api,
    to_record,
)

PSEUDONYMS = Pseudonyms(b"0123456789abcdef", 16)
VIEW: dict[str, Any] = {"type": "view_item", "user_id": "u", "items": [{"item_id": "A"}]}


@given(st.integers(int(1e11), 4_102_444_800_000))
def test_time_forms_agree(millis: int) -> None:
    assert parse_time(millis) == millis
    assert parse_time(iso(millis)) == millis
    assert parse_time(millis // 1000) == millis // 1000 * 1000
    assert parse_time(datetime.fromtimestamp(millis // 1000, UTC)) == millis // 1000 * 1000


@given(st.integers(0, 4_102_444_800), st.sampled_from("Tt "), st.sampled_from("Zz"))
def test_rfc_3339_lets_letters_be_small_and_a_space_stand_for_the_t(
    second: int, between: str, end: str
) -> None:
    text = iso(second * 1000).replace("T", between).replace("Z", end)
    assert parse_time(text) == second * 1000


@given(st.integers(100_000_000_000, 4_102_444_800_000), st.booleans())
def test_smaller_units_are_named(millis: int, nanoseconds: bool) -> None:
    factor, unit = (10**6, "nanoseconds") if nanoseconds else (10**3, "microseconds")
    with pytest.raises(ValueError, match=f"looks like {unit}: send seconds or milliseconds"):
        parse_time(millis * factor)


@pytest.mark.parametrize(
    "wrong",
    [True, None, "2020-01-01", "2020-01-01T00:00:00", "soon", float("nan"), float("inf"), -1,
     5e12, [], datetime(2020, 1, 1)],  # noqa: DTZ001
)  # fmt: skip
def test_unreadable_time(wrong: Any) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(wrong)


def refusal(**change: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as raised:
        Event.model_validate(VIEW | change)
    (problem,) = problems(raised.value)
    return problem


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "View"}, "/type"),
        ({"type": "a" * 65}, "/type"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": "u" * 129}, "/user_id"),
        ({"user_id": None}, ""),
        ({"items": []}, ""),
        ({"type": "purchase"}, ""),
        ({"type": "rate_item"}, ""),
        ({"items": [{"item_id": "A", "price": -1}]}, "/items/0/price"),
        ({"items": [{"item_id": "A", "quantity": 0}]}, "/items/0/quantity"),
        ({"items": [{"item_id": "A", "price": float("nan")}]}, "/items/0/price"),
        ({"items": [{"item_id": "A"}] * 201}, "/items"),
        ({"items": [{"item_id": "A", "colour": "red"}]}, "/items/0/colour"),
        ({"nonsense": 1}, "/nonsense"),
        ({"currency": "euro"}, "/currency"),
        ({"value": float("inf")}, "/value"),
        ({"value": -0.01}, "/value"),
        ({"type": "refund", "order_id": "o", "value": -50}, "/value"),
        ({"tz": "Mars/Base"}, "/tz"),
        ({"tz": "localtime"}, "/tz"),
        ({"properties": {"a": {"b": {"c": {"d": {"e": 1}}}}}}, "/properties"),
        ({"properties": {"a": "x" * 9000}}, "/properties"),
        ({"time": "soon"}, "/time"),
    ],
)
def test_refusals_name_the_place(change: dict[str, Any], where: str) -> None:
    assert refusal(**change)["pointer"] == where


def test_refusals_do_not_echo_input() -> None:
    assert "secret" not in str(refusal(user_id="secret" * 40))


@pytest.mark.parametrize("kind", sorted(ITEM_TYPES))
def test_item_types_need_items(kind: str) -> None:
    with pytest.raises(ValidationError):
        Event.model_validate({"type": kind, "user_id": "u", "order_id": "o", "rating": 1})


def test_properties_may_be_as_deep_as_allowed() -> None:
    deep = {"a": {"b": {"c": {"d": 1}}}}
    assert Event.model_validate(VIEW | {"properties": deep}).properties == deep


def test_custom_types_need_no_items() -> None:
    assert Event.model_validate({"type": "spun_the_wheel", "anonymous_id": "x"}).items == []


def test_record_is_pseudonymous_and_links() -> None:
    event = Event.model_validate(VIEW | {"user_id": "jane@x.org", "anonymous_id": "cookie-77"})
    record = to_record(event, PSEUDONYMS, received_ms=5)
    assert record.user == PSEUDONYMS.of_user("jane@x.org")
    assert record.linked == PSEUDONYMS.of_anonymous("cookie-77")
    assert not record.anonymous
    assert b"jane" not in record.encode()
    assert b"cookie" not in record.encode()
    assert record.time_ms == record.received_ms == 5
    assert record.id


def test_anonymous_record() -> None:
    event = Event.model_validate({"type": "login", "anonymous_id": "c", "time": 10**12})
    record = to_record(event, PSEUDONYMS, received_ms=5)
    assert (record.user, record.linked) == (PSEUDONYMS.of_anonymous("c"), None)
    assert record.anonymous
    assert record.time_ms == 10**12


texts = st.text(min_size=1, max_size=20)
people = texts.filter(lambda text: text == text.strip() and not is_nobody(text))
events = st.fixed_dictionaries(
    {
        "type": st.just("purchase"), "user_id": people, "id": texts, "order_id": texts,
        "time": st.integers(int(1e11), 4_102_444_800_000),
        "items": st.lists(
            st.fixed_dictionaries(
                {"item_id": texts, "quantity": st.floats(0.01, 1e6)},
                optional={"price": st.floats(0, 1e9), "category": texts, "brand": texts,
                          "position": st.integers(0, 100_000), "discount": st.floats(0, 1e9)},
            ),
            min_size=1, max_size=4,
        ),
    },
    optional={"value": st.floats(0, 1e12), "currency": st.just("EUR"), "coupon": texts,
              "session_id": texts, "consent": st.dictionaries(texts, st.booleans(), max_size=3),
              "properties": st.dictionaries(texts, st.integers(0, 9), max_size=3)},
)  # fmt: skip


@given(events)
def test_event_to_record_and_back(body: dict[str, Any]) -> None:
    event = Event.model_validate(body)
    record = to_record(event, PSEUDONYMS, received_ms=1)
    assert EventRecord.decode(record.encode()) == record
    outside = record_to_api(record) | {"user_id": event.user_id}
    assert Event.model_validate(outside) == event


def test_pointer_escapes() -> None:
    assert pointer(("consent", "a/b~c")) == "/consent/a~1b~0c"
