"""Minimisation of a record: lists, the detector, and what neither may touch."""

import re
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_repo.events.fields import SET_ASIDE
from feature_repo.events.minimisation import OURS, FieldPolicy, Minimiser, parse_fields
from feature_repo.events.personal_walk import Refusal
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import Event, EventRecord, record_to_api, to_record
from feature_repo.user_profile.consent import TERMS, read_statements
from services.settings import Settings

PSEUDONYMS = Pseudonyms(b"0123456789abcdef", 16)
HASH = re.compile(r"h:[a-z2-7]{26}")


def minimised(policy: FieldPolicy, **fields: Any) -> tuple[EventRecord, Refusal | None]:
    event = Event.model_validate({"type": "search", "user_id": "7", "id": "e", "time": 0} | fields)
    record = to_record(event, PSEUDONYMS, 0)
    before = event.model_dump_json()
    refusal = Minimiser(policy, PSEUDONYMS).apply(event, record)
    assert event.model_dump_json() == before  # the importer writes it into the file of the rest
    return record, refusal


def test_what_is_listed_is_dropped_or_hashed_and_nothing_else() -> None:
    policy = FieldPolicy(parse_fields("url, properties.gone"), parse_fields("query,properties.*"))
    told = {"gone": "x", "kept": "y", "number": 5, "deep": {"b": 1, "a": [2]}, "nothing": None}
    record, _ = minimised(policy, url="https://x", query="tea", properties=told, device="phone")
    assert (record.url, record.device) == (None, "phone")
    assert record.query is not None
    assert HASH.fullmatch(record.query)
    assert record.properties is not None
    assert record.properties.keys() == told.keys() - {"gone"}
    assert record.properties["nothing"] is None
    assert all(HASH.fullmatch(record.properties[name]) for name in ("kept", "number", "deep"))
    again, _ = minimised(policy, query="tea", properties={"deep": {"a": [2], "b": 1}, "kept": "z"})
    assert again.query == record.query
    assert again.properties is not None
    assert again.properties["deep"] == record.properties["deep"]
    assert again.properties["kept"] != record.properties["kept"]
    other = Minimiser(policy, Pseudonyms(b"fedcba9876543210", 16))
    event = Event(type="search", user_id="7", query="tea")
    stranger = to_record(event, PSEUDONYMS, 0)
    other.apply(event, stranger)
    assert stranger.query != record.query  # the key of another shop


def test_a_property_that_has_nothing_left_is_none() -> None:
    record, _ = minimised(FieldPolicy(dropped=parse_fields("properties.*")), properties={"a": 1})
    assert record.properties is None


def test_what_portrait_reads_is_left_alone() -> None:
    policy = FieldPolicy(dropped=parse_fields("properties.*"))
    assert TERMS in OURS
    terms = {"email": {"expires_at": "2099-01-01T00:00:00Z"}}
    record, _ = minimised(
        policy, type="login", consent={"email": True}, properties={TERMS: terms, "a": 1}
    )
    assert record.properties == {TERMS: terms}
    record, _ = minimised(policy, type="login", properties={TERMS: terms, "a": 1})
    assert record.properties is None  # it says nothing about consent
    said = {"purpose": "ads", "granted": False}
    record, _ = minimised(policy, type="consent_updated", properties=said)
    assert read_statements(record) == {"ads": False}


def test_personal_data_are_hashed_where_they_stand() -> None:
    policy = FieldPolicy(texts="hash")
    record, refusal = minimised(
        policy, query="from Jo@x.example to +49 170 1234567", consent={"ads": True},
        url="https://u.example/a?mail=jo%40x.example&page=2&q=caf%C3%A9+au+lait",
        properties={
            "note": "4111 1111 1111 1111", "deep": [{"to": ["jo@x.example"]}], "n": 7, "f": 1.5,
            "card": 4111111111111111, "phone": "01701234567", "jo@x.example": True,
            "ean": 4006381333931, "ref": "https://v.example/?a=1&phone=01701234567",
            TERMS: {"ads": {"version": "a@b.de"}},
        },
    )  # fmt: skip
    assert refusal is None
    mail = PSEUDONYMS.of_text("jo@x.example")
    assert record.query == f"from {mail} to {PSEUDONYMS.of_text('+491701234567')}"
    assert record.url == f"https://u.example/a?mail={mail}&page=2&q=caf%C3%A9+au+lait"
    phone, card = PSEUDONYMS.of_text("01701234567"), PSEUDONYMS.of_text("4111111111111111")
    assert record.properties == {
        "note": card, "deep": [{"to": [mail]}], "card": card, "phone": phone, mail: True,
        "ean": 4006381333931, "n": 7, "f": 1.5, "ref": f"https://v.example/?a=1&phone={phone}",
        TERMS: {"ads": {"version": "a@b.de"}},
    }  # fmt: skip


def test_a_refusal_names_the_field_and_never_the_value() -> None:
    policy = FieldPolicy(texts="reject")
    for fields, pointer in (
        ({"query": "jo@x.example"}, "/query"),
        ({"url": "https://x/?a=jo%2540x.example"}, "/url"),
        ({"properties": {"a/b": [1, {"c": "jo@x.example"}]}}, "/properties/a~1b/1/c"),
        ({"properties": {"jo@x.example": {"x": "jo@x.example"}}}, "/properties"),
        ({"properties": {"card": 4111111111111111}}, "/properties/card"),
    ):
        _, refusal = minimised(policy, **fields)
        assert refusal is not None
        assert refusal.pointer == pointer
        assert "looks like a" in refusal.detail
        assert "jo" not in refusal.detail
        assert "4111" not in refusal.detail
    dropped = FieldPolicy(dropped=parse_fields("query"), texts="reject")
    assert minimised(dropped, query="jo@x.example")[1] is None  # what is not kept needs no refusal


def test_ids_are_refused_by_setting_and_never_hashed() -> None:
    mail = "jo@x.example"
    for name in ("user_id", "anonymous_id", "id", "session_id", "order_id"):
        record, refusal = minimised(FieldPolicy(texts="hash"), **{name: mail})
        assert refusal is None
        assert name in ("user_id", "anonymous_id") or getattr(record, name) == mail
        _, refusal = minimised(FieldPolicy(ids="reject"), **{name: mail})
        assert refusal is not None
        assert refusal.pointer == f"/{name}"
    assert minimised(FieldPolicy(ids="reject"), session_id="4111111111111111")[1] is None


@given(st.recursive(
    st.one_of(st.text(max_size=20), st.integers(), st.none(),
              st.sampled_from(["jo@x.example", "+49 170 1234567", "https://x/?a=b%40c.de"])),
    lambda some: st.one_of(st.lists(some, max_size=3), st.dictionaries(st.text(max_size=9), some,
                                                                       max_size=3)),
    max_leaves=8,
))  # fmt: skip
def test_what_comes_in_again_stays_as_it_is(value: Any) -> None:
    """Exports and archives are imported again; a hash is of no hash."""
    for policy in (FieldPolicy(texts="hash"), FieldPolicy(hashed=parse_fields("properties.*,url"))):
        try:
            record, _ = minimised(policy, properties={"a": value}, url="https://x/?a=b%40c.de")
        except ValidationError:  # deeper than properties may be
            return
        assert policy.texts == "off" or b"jo@x.example" not in record.encode()
        told = record_to_api(record)
        again, refusal = minimised(policy, properties=told["properties"], url=told["url"])
        assert (refusal, again.properties, again.url) == (None, record.properties, record.url)


def test_bounds_hold_behind_it() -> None:
    policy = FieldPolicy(texts="hash")
    record, _ = minimised(policy, query=" ".join(["a@b.de"] * 290))
    assert record.query is not None
    assert HASH.fullmatch(record.query)
    told = {"all": ["a@b.de"] * 800, "one": "a@b.de", "n": 1}
    record, refusal = minimised(policy, properties=told)
    assert refusal is None  # it was within the bound as it was sent
    assert record.properties is not None
    assert HASH.fullmatch(record.properties["all"])
    assert (record.properties["one"], record.properties["n"]) == (PSEUDONYMS.of_text("a@b.de"), 1)
    again, refusal = minimised(policy, properties=record.properties)
    assert (refusal, again.properties) == (None, record.properties)
    _, refusal = minimised(policy, properties={f"n{n}": "a@b.de" for n in range(400)})
    assert refusal is not None
    assert refusal.pointer == "/properties"
    assert "hashed" in refusal.detail
    record, _ = minimised(policy, properties={"all": ["a@b.de"] * 200})
    assert len(orjson.dumps(record.properties)) > 200 * 28


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("drop_fields", "url,device", "'device' is no field"),
        ("drop_fields", "properties", "'properties' is no field"),
        ("hash_fields", "properties.", "'properties.' is no field"),
        ("drop_fields", "properties.terms", "read by Portrait itself"),
        ("personal_data", "maybe", "'off', 'reject' or 'hash'"),
        ("personal_ids", "hash", "'allow' or 'reject'"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(name: str, value: str, told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        Settings(**{name: value})


def test_a_field_is_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_DROP_FIELDS", "url, query")
    monkeypatch.setenv("PORTRAIT_HASH_FIELDS", "query")
    with pytest.raises(ValidationError, match="'query' is in PORTRAIT_DROP_FIELDS too"):
        Settings()
    monkeypatch.setenv("PORTRAIT_HASH_FIELDS", "properties.*")
    assert Settings().field_policy == FieldPolicy(
        frozenset({"url", "query"}), frozenset({"properties.*"}), "hash", "allow"
    )


@pytest.mark.parametrize(
    "properties",
    [
        {TERMS: "jo@shop.example"},
        {TERMS: {"note": "jo@shop.example"}},
        {TERMS: {"email": {"version": ["jo@shop.example"]}}},
        {"form": {TERMS: ["jo@shop.example"]}},
        {SET_ASIDE: {"value": "jo@shop.example"}},
        {"phone": 1701234567},
        {"mobile": [491701234567]},
    ],
)
def test_no_name_of_a_property_hides_what_stands_in_it(properties: dict[str, Any]) -> None:
    for more in ({}, {"consent": {"email": True}}):
        record, _ = minimised(FieldPolicy(texts="hash"), properties=properties, **more)
        text = orjson.dumps(record.properties).decode()
        assert "jo@" not in text
        assert "1701234567" not in text
        _, refusal = minimised(FieldPolicy(texts="reject"), properties=properties, **more)
        assert refusal is not None


@pytest.mark.parametrize("key", ["+491701234567", "4111111111111111", "jo@shop.example"])
def test_what_a_property_is_called_may_be_somebodys(key: str) -> None:
    for properties in ({key: 1}, {"a": [{key: 1}]}, {TERMS: {"ads": {key: 1}}}):
        more = {"consent": {"ads": True}}
        record, _ = minimised(FieldPolicy(texts="hash"), properties=properties, **more)
        assert key not in orjson.dumps(record.properties).decode()
        assert PSEUDONYMS.of_text(key) in orjson.dumps(record.properties).decode()
        _, refusal = minimised(FieldPolicy(texts="reject"), properties=properties, **more)
        assert refusal is not None


@pytest.mark.parametrize("piece", ["a", "phone", "_tel", "aA", "/", "order[0]"])
def test_many_values_of_one_long_name_take_no_time(piece: str) -> None:
    """CPU seconds for what fits into the properties of one event; it is done in the event loop."""
    policy, name = FieldPolicy(texts="hash"), piece * (4_000 // len(piece))
    took = []
    for _ in range(3):
        begin = time.thread_time()
        minimised(policy, properties={name: [1234567] * 400})
        took.append(time.thread_time() - begin)
    assert min(took) < 0.02


def test_two_spellings_of_a_key_are_two_keys() -> None:
    told = {"John@x.de": 1, "john@x.de": 2, "a": 3}
    record, _ = minimised(FieldPolicy(texts="hash"), properties=told)
    assert record.properties is not None
    assert sorted(record.properties.values()) == [1, 2, 3]
    assert record.properties[PSEUDONYMS.of_text("john@x.de")] == 1
    again, _ = minimised(FieldPolicy(texts="hash"), properties=record.properties)
    assert again.properties == record.properties
    told = {**record.properties, "John@x.de": 4, "john@x.de": 5}  # and who sends what came of it
    record, _ = minimised(FieldPolicy(texts="hash"), properties=told)
    assert record.properties is not None
    assert sorted(record.properties.values()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["caller_id", "callback_time"])
def test_a_number_with_a_plus_is_a_phone_whatever_it_is_called(name: str) -> None:
    properties = {name: "+49 170 1234567"}
    record, _ = minimised(FieldPolicy(texts="hash"), properties=properties)
    assert record.properties == {name: PSEUDONYMS.of_text("+491701234567")}


def test_a_url_with_blanks_as_plus_is_looked_through() -> None:
    record, _ = minimised(FieldPolicy(texts="hash"), url="/?q=4111+1111+1111+1111&tel=0170/1234567")
    card, phone = PSEUDONYMS.of_text("4111111111111111"), PSEUDONYMS.of_text("01701234567")
    assert record.url == f"/?q={card}&tel={phone}"
    url = "/orders/4111111111111111?variant=39412345678900"
    record, _ = minimised(FieldPolicy(texts="hash"), url=url)
    assert record.url == url


@pytest.mark.parametrize("until", ["2099-01-31T12:00:00+01:00", 4_070_908_800_000, 4_070_908_800])
def test_terms_of_consent_stay_as_they_were(until: Any) -> None:
    properties = {TERMS: {"news@shop.example": {"expires_at": until, "version": "2026-11"}}}
    record, refusal = minimised(
        FieldPolicy(texts="hash"), consent={"news@shop.example": True}, properties=properties
    )
    assert (refusal, record.properties) == (None, properties)
    properties[TERMS]["news@shop.example"]["version"] = "by jo@x.example"
    for texts in ("hash", "reject"):
        record, refusal = minimised(
            FieldPolicy(texts=texts), consent={"news@shop.example": True}, properties=properties
        )
        assert (refusal, record.properties) == (None, properties)


@pytest.mark.parametrize("name", ["order_id", "ean", "created_ts"])
def test_numbers_of_things_are_nobodys(name: str) -> None:
    properties = {name: 4111111111111111, "n": 1}
    record, _ = minimised(FieldPolicy(texts="hash"), properties=properties)
    assert record.properties == properties
