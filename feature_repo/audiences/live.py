"""One live profile against a rule: the second back end, for rules that `plan` calls real-time.

Belongs here: what each node means of a profile at a moment. It answers as the SQL of
`compiler` does on the same events; a rule that it cannot answer is refused beforehand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from feature_repo.audiences import rules
from feature_repo.audiences.trait_sql import find_window
from feature_repo.audiences.traits import OVERDUE
from feature_repo.audiences.values import Bounds
from feature_repo.profile_views import metrics
from feature_repo.user_profile.compact import DAY_S, MILLI, pack_type
from feature_repo.user_profile.explicit import ExplicitProfile
from feature_repo.user_profile.order_days import window
from feature_repo.user_profile.purposes import DEFAULTS, allowed


@dataclass(frozen=True, slots=True)
class User:
    """A user as of a moment.

    Attributes
    ----------
    profile
        Explicit profile of at least one event.
    now_s
        The moment, epoch seconds.
    standing
        What stands of each purpose when nobody was asked.
    """

    pseudonym: str
    profile: ExplicitProfile
    now_s: int
    standing: Mapping[str, bool] = field(default_factory=lambda: DEFAULTS)

    def allows(self, purpose: str) -> bool:
        """Say whether the user allows a purpose at that moment."""
        return allowed(self.profile.consent, purpose, self.now_s, self.standing)


def is_member(
    definition: rules.Definition, known: Mapping[str, rules.Definition], user: User
) -> bool:
    """Say whether a user belongs to an audience.

    Parameters
    ----------
    definition
        One that `plan.plan` calls real-time.
    known
        Every audience that it names, and those that they name.

    Raises
    ------
    KeyError
        If it is not a real-time one.
    """
    return (
        all(map(user.allows, definition.consent))
        and _holds(definition.rule, known, user)
        and not any(_holds(node, known, user) for node in definition.exclude)
    )


def _holds(node: Any, known: Mapping[str, rules.Definition], user: User) -> bool:
    if isinstance(node, rules.All):
        return all(_holds(child, known, user) for child in node.all)
    if isinstance(node, rules.AnyOf):
        return any(_holds(child, known, user) for child in node.any)
    if isinstance(node, rules.Not):
        return not _holds(node.not_, known, user)
    if isinstance(node, rules.InAudience):
        return is_member(known[node.audience], known, user)
    return _LEAVES[type(node)](node, user)


def _pseudonym(node: rules.IsPseudonym, user: User) -> bool:
    return user.pseudonym in node.entities


def _event(node: rules.HasEvent, user: User) -> bool:
    test, orders = node.event, user.profile.orders
    for name in ("first", "last"):
        bounds = getattr(test, name)
        if bounds is not None:
            at = orders.first_at if name == "first" else orders.last_at
            return bool(bounds.hold(_days(user, at) if orders.count else None))
    counts = user.profile.counts
    count = counts.get(pack_type(test.type)) or counts.get(test.type, 0)
    return (test.count or Bounds(gte=1)).hold(count)


def _trait(node: rules.HasTrait, user: User) -> bool:
    test = node.trait
    value = trait_value(test.name, user)
    if test.trait().kind == "number":
        return test.bounds().hold(value)
    if test.trait().kind == "flag":
        return bool(value == test.eq)
    return (test.eq is None or value == test.eq) and (test.in_ is None or value in test.in_)


def trait_value(name: str, user: User) -> Any:
    """Return the value of a live trait; None where it is unknown."""
    days = find_window(name)
    if days is not None:
        orders, money = window(user.profile.orders, user.now_s // DAY_S, days[1])
        return orders if name.startswith("rfm.frequency") else money / MILLI
    return _TRAITS[name](user)


def _days(user: User, at: int) -> float:
    return max(0, user.now_s - at) / DAY_S


def _last_seen_days(user: User) -> float | None:
    return _days(user, user.profile.seen_at) if user.profile.seen_at else None


def _overdue(user: User) -> float | None:
    gap, recency = metrics.median_gap_days(user.profile), _recency_days(user)
    return recency / gap if gap and recency is not None else None


def _recency_days(user: User) -> float | None:
    return metrics.recency_days(user.profile, user.now_s)


_TRAITS: Final[dict[str, Callable[[User], Any]]] = {
    "event_count": lambda user: user.profile.event_count,
    "orders.count": lambda user: user.profile.orders.count,
    "orders.spend": lambda user: user.profile.orders.spend / MILLI,
    "identity.anonymous": lambda user: user.profile.anonymous,
    "identity.first_seen_days": lambda user: _days(user, user.profile.first_at),
    "identity.last_seen_days": _last_seen_days,
    "rfm.recency_days": _recency_days,
    "habits.median_gap_days": lambda user: metrics.median_gap_days(user.profile),
    OVERDUE: _overdue,
    "lifecycle.stage": lambda user: metrics.lifecycle(user.profile, user.now_s)["stage"],
}

_LEAVES: Final[dict[type, Callable[[Any, User], bool]]] = {
    rules.IsPseudonym: _pseudonym,
    rules.HasEvent: _event,
    rules.HasTrait: _trait,
}
