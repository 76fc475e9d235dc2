"""Looking at a profile changes none of its bytes."""

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile.explicit import decode, encode, fold, new


def test_what_is_empty_and_was_looked_at_has_the_bytes_of_what_was_not() -> None:
    view = EventRecord(
        id="1", type="view_item", user="u", time_ms=0, received_ms=0, items=[ItemRecord("A")]
    )
    for profile in (new(), fold([view])):
        stored = encode(profile)
        looked_at = decode(stored)
        assert looked_at.says_nothing
        assert (looked_at.consent, looked_at.linked, looked_at.orders.count) == ({}, [], 0)
        assert looked_at.says_nothing
        assert encode(looked_at) == stored


def test_who_said_something_or_is_linked_does_not_say_nothing() -> None:
    said = EventRecord(
        id="1", type="login", user="u", time_ms=0, received_ms=0, consent={"ads": False}
    )
    linked = EventRecord(id="2", type="login", user="u", time_ms=0, received_ms=0, linked="v")
    for event in (said, linked):
        profile = fold([event])
        assert not profile.says_nothing
        assert not decode(encode(profile)).says_nothing
