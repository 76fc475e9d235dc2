"""Senders' rights: a key of scope ``write`` may stand in a browser and sends what a user does.

Belongs here: the rules that an event and its sender are held to before it is taken. Which calls a
key may make is declared on the routes; whose an anonymous id is, the log decides when it links.
"""

from typing import Final

from feature_repo.events.schema import Event
from feature_repo.events.types import find_types
from feature_repo.user_profile.consent import parse_statements
from services.http.api_keys import Caller

_SHOPS: Final = find_types("shop")
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
    granted = [
        p for p, yes in parse_statements(event.type, event.consent, event.properties).items() if yes
    ]
    if granted:
        pointer = "/consent" if event.consent is not None else "/properties"
        detail = "a key of scope write grants a purpose for an anonymous_id alone, for no user_id"
        return pointer, detail
    if event.anonymous_id is not None and not may_link:
        return "/anonymous_id", "here a key of scope write links no ids: use a key of scope server"
    return None
