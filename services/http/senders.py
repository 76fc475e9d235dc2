"""Senders' rights: a key of scope ``write`` may stand in a browser and sends what a user does.

Belongs here: the rules that an event and its sender are held to before it is taken. Which calls a
key may make is declared on the routes; whose an anonymous id is, the log decides when it links.
"""

from typing import Final

from feature_repo.events.schema import CANONICAL_TYPES, Event
from feature_repo.standing import stated
from services.http.api_keys import Caller

SHOPPER_TYPES: Final = frozenset(
    {
        "view_item", "view_item_list", "select_item", "search", "add_to_cart",
        "remove_from_cart", "view_cart", "begin_checkout", "add_payment_info", "purchase",
        "add_to_wishlist", "remove_from_wishlist", "rate_item", "share", "not_interested",
        "view_promotion", "select_promotion", "sign_up", "login", "identify", "consent_updated",
    }
)  # fmt: skip
"""What a user does. Custom types may come from anybody, but for `_SHOPS`."""
_SHOPS: Final = CANONICAL_TYPES - SHOPPER_TYPES | {"campaign_decision"}
_MESSAGES: Final = "message_"
_OURS: Final = "portrait"


def refusal(event: Event, sender: Caller, *, may_link: bool) -> tuple[str, str] | None:
    """Return why an event is not taken from a key: JSON pointer and detail; None if it is.

    Parameters
    ----------
    may_link
        Whether keys of scope ``write`` may send a user id and an anonymous id together.
    """
    if sender.may("server"):
        return None
    if event.type in _SHOPS or event.type.startswith(_MESSAGES):
        return "/type", f"{event.type} is the shop's to send: use a key of scope server"
    if event.source.strip().casefold().startswith(_OURS):
        return "/source", "a source that begins with portrait needs a key of scope server"
    if event.user_id is None:
        return None
    granted = [p for p, yes in stated(event.type, event.consent, event.properties).items() if yes]
    if granted:
        place = "/consent" if event.consent is not None else "/properties"
        detail = "a key of scope write grants a purpose for an anonymous_id alone, for no user_id"
        return place, detail
    if event.anonymous_id is not None and not may_link:
        return "/anonymous_id", "here a key of scope write links no ids: use a key of scope server"
    return None
