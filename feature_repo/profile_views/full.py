"""The view ``full``: everything known of a user, with evidence, as-of time and model version.

Belongs here: the shape of that answer. Not here: the figures in it (`metrics`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from feature_repo.events.schema import SESSION_GAP_MS, iso
from feature_repo.profile_views import consents, metrics
from feature_repo.profile_views.seed import default_title
from feature_repo.profile_views.shapes import (
    CategoryChances,
    LatestSession,
    Lifecycle,
    Profile,
    ProfileIdentity,
    ProfileRfm,
    Propensity,
    RecentEvent,
    Segment,
)
from feature_repo.user_profile.compact import MILLI, unpack_type
from feature_repo.user_profile.explicit import SCHEMA, ExplicitProfile

FEATURE_SERVICE: Final = "profile_v1"
NEXT_CATEGORY_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class LearnedSummary:
    """What the learned side of a user adds to ``full``.

    Attributes
    ----------
    model
        Version of the model that made the learned state.
    dim
        Length of the user embedding.
    propensities
        ``{name: (p, calibrated)}``: a probability and whether it was calibrated.
    next_categories
        Category and probability of a purchase within 14 days, likeliest first; None: no model.
    next_categories_calibrated
        Whether those probabilities were calibrated.
    """

    model: str
    dim: int
    propensities: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    next_categories: Sequence[tuple[str, float]] | None = None
    next_categories_calibrated: bool = False


def full(
    profile: ExplicitProfile,
    *,
    user_id: str,
    now_ms: int,
    title: Callable[[str], str] = default_title,
    batch: Mapping[str, Any] | None = None,
    learned: LearnedSummary | None = None,
) -> Profile:
    """Return everything known of a user, each derived value with evidence and as-of time.

    Parameters
    ----------
    user_id
        Echoed as given; the state holds pseudonyms only.
    now_ms
        Moment all decays and windows are read at, epoch milliseconds.
    title
        Shown name of an item id.
    batch
        Latest batch features of the user (quintiles and segment are read), or None.
    learned
        What the model knows of the user, or None without a model.

    Examples
    --------
    >>> from feature_repo.user_profile.explicit import new
    >>> full(new(), user_id="7", now_ms=0)["lifecycle"]["stage"]
    'visitor'
    """
    now = now_ms // 1000
    lifecycle, rfm = metrics.lifecycle(profile, now), metrics.rfm(profile, now, batch)
    model = None if learned is None else learned.model
    return {
        "user_id": user_id,
        "version": profile.version,
        "updated_at": iso(profile.last_at * 1000) if profile.version else None,
        "event_count": profile.version,
        "identity": _identity(profile),
        "consent": {purpose: consents.show(stated) for purpose, stated in profile.consent.items()},
        "lifecycle": lifecycle,
        "rfm": rfm,
        "session": _session(profile, now, title),
        "interests": [
            {**interest, "title": title(interest["key"])}
            if interest["kind"] == "item"
            else interest
            for interest in metrics.interests(profile, now)
        ],
        "affinities": metrics.affinities(profile, now),
        "habits": metrics.habits(profile, now),
        "cycles": metrics.cycles(profile, now),
        "propensities": _propensities(learned),
        "next_categories": _next_categories(learned, now_ms),
        "segments": _segments(lifecycle, rfm),
        "recent": _recent(profile, title),
        "embedding": None if learned is None else {"dim": learned.dim, "model": learned.model},
        "provenance": {
            "feature_service": FEATURE_SERVICE,
            "schema": SCHEMA,
            "model": model,
            "late_events": profile.late,
            "as_of": iso(now_ms),
        },
    }


def _identity(profile: ExplicitProfile) -> ProfileIdentity:
    return {
        "anonymous": profile.anonymous,
        "linked": len(profile.linked),
        "first_seen_at": metrics.format_time(profile.first_at),
        "last_seen_at": metrics.format_time(profile.seen_at),
        "events_by_type": {unpack_type(name): n for name, n in profile.counts.items()},
    }


def _session(profile: ExplicitProfile, now: int, title: Callable[[str], str]) -> LatestSession:
    session = profile.session
    begun = session.number > 0
    name = f"auto-{session.number}" if session.name == "" else str(session.name)
    return {
        "id": name if begun else None,
        "started_at": iso(session.started_at * 1000) if begun else None,
        "last_at": iso(session.last_at * 1000) if begun else None,
        "active": begun and now - session.last_at <= SESSION_GAP_MS // 1000,
        "events": session.events,
        "items_viewed": len(session.views),
        "cart": [
            {"item_id": str(key), "title": title(str(key)), "quantity": quantity / MILLI}
            for key, quantity in session.cart.items()
        ],
        "intent": session.intent,
    }


def _propensities(learned: LearnedSummary | None) -> dict[str, Propensity]:
    if learned is None:
        return {}
    return {
        name: {"p": round(p, 6), "calibrated": calibrated, "model": learned.model}
        for name, (p, calibrated) in learned.propensities.items()
    }


def _next_categories(learned: LearnedSummary | None, now_ms: int) -> CategoryChances | None:
    if learned is None or learned.next_categories is None:
        return None
    return {
        "within_days": NEXT_CATEGORY_DAYS,
        "categories": [{"category": name, "p": round(p, 6)} for name, p in learned.next_categories],
        "calibrated": learned.next_categories_calibrated,
        "model": learned.model,
        "as_of": iso(now_ms),
    }


def _segments(lifecycle: Lifecycle, rfm: ProfileRfm) -> list[Segment]:
    found: list[Segment] = [
        {"name": f"lifecycle:{lifecycle['stage']}", "as_of": lifecycle["as_of"]}
    ]
    if rfm["segment"] is not None:
        found.append({"name": f"rfm:{rfm['segment']}", "as_of": rfm["as_of"]})
    return found


def _recent(profile: ExplicitProfile, title: Callable[[str], str]) -> list[RecentEvent]:
    return [
        {
            "type": group.type,
            "item_id": key,
            "title": title(key),
            "time": iso(group.at * 1000),
        }
        for group in profile.recent
        for key in group.items
    ]
