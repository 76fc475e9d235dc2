"""The view ``seed``: behaviour, interest and purchase history as a few plain lists.

Belongs here: its words and its order. Not here: the other views.
"""

from collections.abc import Callable

from feature_repo.events.types import TYPES
from feature_repo.profile_views.shapes import Seed
from feature_repo.user_profile.explicit import ExplicitProfile, purchased_items


def default_title(item_id: str) -> str:
    """Return the shown name of an item without a catalogue title."""
    return "Product " + item_id


def format_user_id(user_id: str) -> int | str:
    """Return a user id as shown: a number when it is one in canonical decimal digits.

    Examples
    --------
    >>> format_user_id("123"), format_user_id("007")
    (123, '007')
    """
    # Beyond 2^53 JSON readers with double precision would change the id.
    if user_id.isascii() and user_id.isdecimal() and str(int(user_id[:17])) == user_id:
        number = int(user_id)
        if number < 2**53:
            return number
    return user_id


def verb(event_type: str) -> str:
    """Return the word for an event type; of a custom type, its name in words.

    Examples
    --------
    >>> verb("purchase"), verb("try_on")
    ('Purchase', 'Try on')
    """
    known = TYPES.get(event_type)
    return (known and known.verb) or event_type.replace("_", " ").strip().capitalize()


def seed(
    profile: ExplicitProfile, *, user_id: str, title: Callable[[str], str] = default_title
) -> Seed:
    """Return the profile in its first, plain form.

    ``Interest`` is ordered by the signed number of touches (one up for each view, cart,
    save, rating, share and order of the item, one down for what undoes it), then by first
    touch. Touches, not the decayed weight: with the weight the order would depend on the
    time between the events.

    Examples
    --------
    >>> from feature_repo.events.schema import EventRecord, ItemRecord
    >>> from feature_repo.user_profile.explicit import fold
    >>> def event(type, item):
    ...     return EventRecord(
    ...         id=item, type=type, user="u", time_ms=0, received_ms=0, items=[ItemRecord(item)]
    ...     )
    >>> profile = fold([event("view_item", "A"), event("purchase", "B")])
    >>> view = seed(profile, user_id="123")
    >>> view["User Behavior"], view["Updated User Profile"]["Purchase History"]
    (['Browse Product A', 'Purchase Product B'], ['Product B'])
    """
    behaviour = [
        f"{verb(group.type)} {title(key)}" for group in profile.recent for key in group.items
    ]
    # sorted() keeps the order of first touch among equals.
    items = profile.items.entries()
    interest = sorted(items, key=lambda key: -items[key].net)
    return {
        "User ID": format_user_id(user_id),
        "User Behavior": behaviour,
        "Updated User Profile": {
            "Interest": [title(str(key)) for key in interest],
            "Purchase History": [title(item) for item in purchased_items(profile)],
        },
    }
