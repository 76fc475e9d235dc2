"""Shoppers of whom a test says what is known, in place of a profile."""

from typing import Any

from feature_repo.user_profile import explicit
from services.recommend.user_context import UserContext


def shopper_with(learned: bytes | None = None, **given: Any) -> UserContext:
    """Return a shopper with these ``interests``, ``purchased``, ``seen`` or ``refused``."""
    made = UserContext(explicit.new(), 0, learned)
    interests = given.get("interests", ())
    interest_items = [str(each["key"]) for each in interests if each["kind"] == "item"]
    vars(made).update(
        given, interest_items=interest_items, known=learned is not None or bool(interests)
    )
    return made
