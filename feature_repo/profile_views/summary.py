"""The view ``summary``: a profile in a few lines that a marketer reads.

Belongs here: the words. Not here: the figures behind them (`metrics`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from feature_repo.events.schema import iso
from feature_repo.profile_views import metrics
from feature_repo.profile_views.engagement_score import explain
from feature_repo.profile_views.seed import default_title
from feature_repo.profile_views.shapes import InterestScore, Summary
from feature_repo.user_profile.compact import DAY_S, pack_id
from feature_repo.user_profile.explicit import ExplicitProfile
from feature_repo.user_profile.interest_entry import Interest

SUMMARY_INTERESTS: Final = 5
SUMMARY_BRANDS: Final = 3


def summary(
    profile: ExplicitProfile,
    *,
    user_id: str,
    now_ms: int,
    title: Callable[[str], str] = default_title,
    batch: Mapping[str, Any] | None = None,
) -> Summary:
    """Return the profile in a few lines that a marketer reads.

    Examples
    --------
    >>> from feature_repo.user_profile.explicit import new
    >>> summary(new(), user_id="7", now_ms=0)["habits"]
    'No activity yet.'
    """
    now = now_ms // 1000
    rfm = metrics.rfm(profile, now, batch)
    return {
        "user_id": user_id,
        "stage": metrics.lifecycle(profile, now)["stage"],
        "segment": rfm["segment"],
        "last_seen": metrics.format_time(profile.seen_at),
        "rfm": {
            "recency_days": rfm["recency_days"],
            "orders_91d": rfm["frequency"]["91d"],
            "spend_91d": rfm["monetary"]["91d"],
            "orders": profile.orders.count,
        },
        "interests": _interests_in_words(profile, now, title),
        "brands": [
            f"{brand['key']} ({brand['share']:.0%})"
            for brand in metrics.affinities(profile, now)["brand"][:SUMMARY_BRANDS]
        ],
        "habits": _habits_in_words(profile, now),
        "intent": profile.session.intent,
        "interest_score": _interest_score(batch),
        "version": profile.version,
        "as_of": iso(now_ms),
    }


def _interest_score(batch: Mapping[str, Any] | None) -> InterestScore | None:
    """Return f(x) = Σ wᵢ·xᵢ over the batch features with its summands; None without any."""
    parts = explain(batch or {})
    if not parts:
        return None
    return {
        "score": round(sum(part.amount for part in parts), 4),
        "because": [
            {"feature": part.feature, "value": part.value, "adds": round(part.amount, 4)}
            for part in parts
        ],
    }


def _interests_in_words(
    profile: ExplicitProfile, now: int, title: Callable[[str], str]
) -> list[str]:
    words, shown = list[str](), list[str]()
    tables = metrics.tables(profile)
    for interest in metrics.interests(profile, now):
        table, key = interest["kind"], interest["key"]
        if table == "brand" or metrics.is_department(tables["category"], key):
            continue
        if any(key.startswith(other + "/") for other in shown):
            continue
        if table == "category":
            shown.append(key)
        entry = tables[table][pack_id(key) if table == "item" else key]
        name = title(key) if table == "item" else key.replace("/", " › ")
        words.append(f"{name} ({_evidence(entry)}; last {_ago(now - entry.last_at)})")
        if len(words) == SUMMARY_INTERESTS:
            break
    return words


def _evidence(entry: Interest) -> str:
    counts = {"view": entry.views, "cart": entry.carts, "purchase": entry.purchases}
    named = [f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items() if n]
    return ", ".join(named) or "saved, rated or shared"


def _ago(elapsed_s: int) -> str:
    days = elapsed_s // DAY_S
    return "today" if days <= 0 else f"{days} day{'s' * (days > 1)} ago"


def _habits_in_words(profile: ExplicitProfile, now: int) -> str:
    habits = metrics.habits(profile, now)
    peak = habits["peak"]
    if peak is None:
        return "No activity yet."
    words = f"Most active on {peak['weekday']}s and around {peak['hour']:02d}:00"
    if habits["median_gap_days"] is not None:
        words += f"; orders every {habits['median_gap_days']:.1f} days (median)"
    if habits["basket_size"] is not None:
        words += f", {habits['basket_size']:.1f} lines an order"
    return words + "."
