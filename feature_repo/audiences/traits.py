"""The traits that rules may name: what each is, of which type, and where its value comes from.

Live traits are figures of the explicit profile, named by their path in ``view=full``. The
others are the features of the batch views, by their names in ``docs/features.md``.
Belongs here: the list. How a value is had is `compiler`'s (SQL) and `live`'s (one profile).
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, get_args

from feature_repo.features.catalogue import USER_VIEWS, VIEWS
from feature_repo.profile_views.shapes import Stage

TraitType = Literal["number", "flag", "text", "texts"]

OVERDUE: Final = "habits.overdue"
"""The trait that predicts no purchase, and so may never be all that a rule rests on."""


@dataclass(frozen=True, slots=True)
class Trait:
    """One trait.

    Attributes
    ----------
    kind
        ``number`` takes bounds, ``flag`` true or false, ``text`` ``eq`` and ``in``, ``texts``
        ``contains``.
    view
        Feature view that holds it; None for a live trait.
    passes
        Whether its value changes as time passes, without any event.
    values
        All values of a text trait, where they are known.
    """

    name: str
    kind: TraitType
    meaning: str
    view: str | None = None
    passes: bool = False
    values: tuple[str, ...] = ()


_LIVE: Final = (
    Trait("event_count", "number", "events of any type, ever"),
    Trait("orders.count", "number", "orders ever"),
    Trait("orders.spend", "number", "paid less refunded, ever"),
    Trait("identity.anonymous", "flag", "no event has named a user id"),
    Trait("identity.first_seen_days", "number", "days since the first event", passes=True),
    Trait("identity.last_seen_days", "number", "days since the last event of the user's own doing",
          passes=True),
    Trait("rfm.recency_days", "number", "days since the last order", passes=True),
    Trait("rfm.frequency.28d", "number", "orders in 28 calendar days (UTC)", passes=True),
    Trait("rfm.frequency.91d", "number", "orders in 91 calendar days (UTC)", passes=True),
    Trait("rfm.monetary.28d", "number", "paid less refunded in 28 calendar days (UTC)",
          passes=True),
    Trait("rfm.monetary.91d", "number", "paid less refunded in 91 calendar days (UTC)",
          passes=True),
    Trait("habits.median_gap_days", "number", "median of the last 20 gaps between orders"),
    Trait(OVERDUE, "number", "days since the last order, in median gaps; never alone in a rule",
          passes=True),
    Trait("lifecycle.stage", "text", "recency against the user's own gap between orders",
          passes=True, values=get_args(Stage)),
)  # fmt: skip

_CLUSTER: Final = Trait(
    "cluster", "number", "cluster of users whom the model sees alike, by number", "clusters"
)

_OF_DTYPE: Final[dict[str, TraitType]] = {
    "int": "number", "float": "number", "str": "text", "list[str]": "texts",
}  # fmt: skip

TRAITS: Final[dict[str, Trait]] = {trait.name: trait for trait in (*_LIVE, _CLUSTER)} | {
    feature.name: Trait(feature.name, _OF_DTYPE[feature.dtype], feature.equation, view)
    for view in USER_VIEWS
    for feature in VIEWS[view]
    if feature.dtype in _OF_DTYPE
}
"""Every trait by name."""


def find_trait(name: str) -> Trait:
    """Return a trait.

    Raises
    ------
    ValueError
        If there is none of this name; the message offers the nearest.

    Examples
    --------
    >>> find_trait("lifecycle.stage").kind
    'text'
    """
    if name not in TRAITS:
        near = get_close_matches(name, TRAITS, n=3)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no trait is named {name[:80]!r}{hint}")
    return TRAITS[name]
