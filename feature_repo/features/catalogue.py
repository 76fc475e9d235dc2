"""The list of every feature: name, kind, type, unit and equation, by feature view.

One list for all: `feature_repo.definitions` makes Feast objects of it, the snapshots fill
the columns it names, and ``docs/features.md`` is its printed form (``python -m
feature_repo.features.catalogue > docs/features.md``). How a column is computed does not belong
here.
"""

from dataclasses import dataclass
from typing import Final, Literal

from feature_repo.events.types import LONG_HALF_LIFE_DAYS, TYPES

FeatureType = Literal["temporal", "categorical", "numeric", "state"]

WINDOWS_DAYS: Final = (7, 28, 91)
"""Whole weeks, so that each weekday counts alike: one, four, and a quarter of a year."""
INTERESTS: Final = 10
"""Interests kept of each kind."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a feature view.

    Attributes
    ----------
    name
        Unique over all views.
    kind
        Temporal (when, how long ago, how often), categorical, numeric, or opaque state.
    dtype
        ``int``, ``float``, ``str``, ``bytes``, ``list[str]`` or ``list[float]``.
    unit
        What one step of the value is.
    equation
        How it follows from the events before the snapshot.
    """

    name: str
    kind: FeatureType
    dtype: Literal["int", "float", "str", "bytes", "list[str]", "list[float]"]
    unit: str
    equation: str


COUNTED_TYPES: Final = {each.feature: name for name, each in TYPES.items() if each.feature}
"""Count feature (without its window) to the event type that it counts."""
_ONCE: Final = {"purchase": "; an order told again counts once"}


def _behaviour(days: int) -> tuple[Feature, ...]:
    window = f"in the {days} days before"
    made: list[tuple[str, FeatureType, Literal["int", "float"], str, str]] = [
        ("num_events", "numeric", "int", "events", f"events of any type {window}"),
        *(
            (name, "numeric", "int", "events", f"`{each}` events {window}{_ONCE.get(each, '')}")
            for name, each in COUNTED_TYPES.items()
        ),
        ("num_distinct_items", "numeric", "int", "items", f"distinct items touched {window}"),
        ("num_distinct_categories", "numeric", "int", "categories",
         f"distinct categories (first two levels) touched {window}"),
        ("spend", "numeric", "float", "shop currency", f"Σ paid over purchases {window}"),
        ("discount_share", "numeric", "float", "share",
         f"Σ discount / Σ price·quantity over purchases {window}; null without any"),
        ("num_active_days", "temporal", "int", "days",
         f"days with an event of the user's own (no messages) {window}"),
        ("mean_gap_days", "temporal", "float", "days",
         f"mean of gaps between consecutive active days {window}; null below 2 days"),
        ("std_gap_days", "temporal", "float", "days",
         "√(mean gap² − (mean gap)²) of the same gaps"),
        ("mean_order_gap_days", "temporal", "float", "days",
         f"mean of gaps between consecutive days with a purchase {window}"),
        ("std_order_gap_days", "temporal", "float", "days",
         "√(mean gap² − (mean gap)²) of the same gaps"),
    ]  # fmt: skip
    return tuple(Feature(f"{name}_{days}d", k, d, u, e) for name, k, d, u, e in made)


_INTEREST = (
    f"n = Σ 2^(−age/{LONG_HALF_LIFE_DAYS} d) over baskets with the key, N over all baskets, "
    "p = the key's share in everybody's baskets, κ = shrinkage: (n + κp)/(N + κ)"
)

_PROFILE: tuple[Feature, ...] = (
    Feature("rfm_recency_days", "temporal", "int", "days", "days since the last purchase's day"),
    Feature("rfm_frequency_28d", "numeric", "int", "orders", "purchases in the 28 days before"),
    Feature("rfm_frequency_91d", "numeric", "int", "orders", "purchases in the 91 days before"),
    Feature("rfm_monetary_28d", "numeric", "float", "shop currency", "Σ paid, 28 days"),
    Feature("rfm_monetary_91d", "numeric", "float", "shop currency", "Σ paid, 91 days"),
    Feature("rfm_recency_quintile", "numeric", "int", "1–5", "5 = most recent fifth of buyers"),
    Feature("rfm_frequency_quintile", "numeric", "int", "1–5", "5 = most orders in 91 days"),
    Feature("rfm_monetary_quintile", "numeric", "int", "1–5", "5 = most spend in 91 days"),
    Feature("num_orders_total", "numeric", "int", "orders", "purchases ever"),
    Feature("spend_total", "numeric", "float", "shop currency", "Σ paid ever"),
    Feature("mean_basket_lines", "numeric", "float", "lines", "Σ lines / purchases, ever"),
    Feature("tenure_days", "temporal", "int", "days", "days since the first event's day"),
    Feature("interest_categories", "categorical", "list[str]", "categories",
            f"the user's own categories (first two levels) of highest weight, ≤ {INTERESTS}"),
    Feature("interest_category_weights", "numeric", "list[float]", "share", _INTEREST),
    Feature("interest_brands", "categorical", "list[str]", "brands",
            f"the user's own brands of highest weight, ≤ {INTERESTS}"),
    Feature("interest_brand_weights", "numeric", "list[float]", "share", _INTEREST),
    Feature("hour_histogram", "temporal", "list[float]", "share",
            "share of own events in each hour of the day, 24 values"),
    Feature("weekday_histogram", "temporal", "list[float]", "share",
            "share of own events on each weekday, Monday first, 7 values"),
    Feature("peak_hour", "temporal", "int", "hour", "hour with the most own events, earliest wins"),
    Feature("peak_weekday", "temporal", "int", "weekday", "0 = Monday; most own events"),
)  # fmt: skip

_ITEM: tuple[Feature, ...] = (
    Feature("category", "categorical", "str", "category", "the item's newest stated category"),
    Feature("brand", "categorical", "str", "brand", "the item's newest stated brand"),
    Feature("price", "numeric", "float", "shop currency", "newest price seen before"),
    *(
        Feature(f"popularity_{days}d", "numeric", "int", "baskets",
                f"purchases with the item in the {days} days before")
        for days in WINDOWS_DAYS
    ),
    Feature("num_buyers_total", "numeric", "int", "users", "distinct buyers ever"),
    Feature("repurchase_rate", "numeric", "float", "share",
            "buyers with ≥ 2 purchases of the item / buyers; null without buyers"),
)  # fmt: skip

_LIVE: tuple[Feature, ...] = (
    Feature("profile", "state", "bytes", "–", "explicit profile u_t = f(u_{t−1}, x_t)"),
    Feature("learned", "state", "bytes", "–", "encoder state after the same events"),
    Feature("version", "numeric", "int", "events", "events applied"),
    Feature("model", "categorical", "str", "version", "model that made the learned state"),
)

VIEWS: Final[dict[str, tuple[Feature, ...]]] = {
    **{f"behaviour_{days}d": _behaviour(days) for days in WINDOWS_DAYS},
    "profile": _PROFILE,
    "item": _ITEM,
    "live_state": _LIVE,
}
"""Feature view to its features."""

BATCH_VIEWS: Final = tuple(name for name in VIEWS if name != "live_state")
"""Views that materialize loads; never the live state."""

USER_VIEWS: Final = tuple(name for name in BATCH_VIEWS if name != "item")


def scalars(view: str) -> list[str]:
    """Return the features of ``view`` that a model can take as one number each."""
    return [f.name for f in VIEWS[view] if f.dtype in {"int", "float"}]


_SOURCES: Final = {
    "profile": "weekly, Mondays 00:00 UTC, for every user seen before",
    "item": "Mondays 00:00 UTC on which the item's row differs from its last one",
    "live_state": "after every event, by the updater",
}


def page() -> str:
    """Return ``docs/features.md``."""
    lines = [
        "# Features",
        "",
        "Printed by `python -m feature_repo.features.catalogue > docs/features.md`; edit it there, "
        "not here.",
        "Every row of a batch view holds what follows from events **before** its midnight (UTC).",
        "*Touched*: viewed, selected, put in a cart or on a wish list, bought, rated or shared.",
        "*Paid* is the event's `value`, or Σ max(0, price·quantity − discount) over its lines.",
    ]
    for view, features in VIEWS.items():
        rows = _SOURCES.get(
            view, "at midnight after an active day, and when a day leaves the window"
        )
        lines += [
            "",
            f"## {view}",
            "",
            f"Entity: {'item' if view == 'item' else 'user'}. Rows: {rows}.",
            "",
        ]
        lines += ["| name | kind | type | unit | equation |", "|---|---|---|---|---|"]
        lines += [
            f"| `{f.name}` | {f.kind} | {f.dtype} | {f.unit} | {f.equation} |" for f in features
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
