"""The table of event types: what stored bytes rest on stays as it is."""

from itertools import groupby

import msgspec
import pytest

from feature_repo.events.types import TYPES, EventType, list_types


def test_numbers_in_stored_profiles_and_models_stay() -> None:
    assert list_types("code")[:27] == (
        "view_item", "view_item_list", "select_item", "search", "add_to_cart",
        "remove_from_cart", "view_cart", "begin_checkout", "add_payment_info", "purchase",
        "refund", "add_to_wishlist", "remove_from_wishlist", "rate_item", "share",
        "not_interested", "view_promotion", "select_promotion", "coupon_redeemed",
        "message_sent", "message_opened", "message_clicked", "message_unsubscribed", "sign_up",
        "login", "identify", "consent_updated",
    )  # fmt: skip
    assert list_types("encoder")[:11] == (
        "add_to_cart", "add_to_wishlist", "not_interested", "purchase", "rate_item", "refund",
        "remove_from_cart", "remove_from_wishlist", "select_item", "share", "view_item",
    )  # fmt: skip


@pytest.mark.parametrize("field", ["code", "encoder"])
def test_numbers_leave_no_gap_and_stand_once(field: str) -> None:
    numbers = [number for kind in TYPES.values() if (number := getattr(kind, field)) is not None]
    assert sorted(numbers) == list(range(len(numbers)))


def test_weights_are_those_that_stored_bytes_number() -> None:
    assert {kind.weight for kind in TYPES.values()} == {0, 0.2, 0.3, 0.5, 1}
    assert {kind.popularity for kind in TYPES.values()} == {0, 0.05, 0.3, 1}


def test_evidence_of_one_kind_weighs_the_same() -> None:
    kinds = sorted((kind.evidence, abs(kind.interest)) for kind in TYPES.values() if kind.evidence)
    found = {
        evidence: {weight for _, weight in all_}
        for evidence, all_ in groupby(kinds, lambda k: k[0])
    }
    assert found == {"view": {0.1}, "cart": {0.3}, "purchase": {1}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{evidence: touch}", "Invalid enum value 'touch'"),
        ("{needs: [price]}", "Invalid enum value 'price'"),
        ("{passiv: true}", "unknown field `passiv`"),
    ],
)
def test_a_word_that_the_table_does_not_know_is_refused(line: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.yaml.decode(f"a: {line}".encode(), type=dict[str, EventType])
