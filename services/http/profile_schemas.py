"""Profile views for the API's description: an example of each.

Their shapes are `feature_repo.profile_views.shapes`'.
"""

from typing import Any

from feature_repo.profile_views.shapes import Profile, Seed, Summary

EXAMPLE_TIME = "2026-01-31T12:00:00.000Z"

_NOTHING_PRICED = {"priced_lines_decayed": 0.0, "as_of": None}
FULL: dict[str, Any] = {
    "user_id": "123", "version": 1, "updated_at": EXAMPLE_TIME, "event_count": 1,
    "identity": {"anonymous": False, "linked": 0, "first_seen_at": EXAMPLE_TIME,
                 "last_seen_at": EXAMPLE_TIME, "events_by_type": {"view_item": 1}},
    "consent": {"ads": {"granted": False, "at": EXAMPLE_TIME, "source": "web", "expires_at": None,
                        "version": None}},
    "lifecycle": {"stage": "visitor", "as_of": EXAMPLE_TIME, "evidence": {
        "orders": 0, "recency_days": None, "personal_gap_days": 30.0, "gaps": 0}},
    "rfm": {"recency_days": None, "frequency": {"28d": 0, "91d": 0},
            "monetary": {"28d": 0.0, "91d": 0.0}, "quintiles": None, "segment": None,
            "evidence": {"orders": 0, "refunds": 0, "monetary_lifetime": 0.0,
                         "first_order_at": None, "last_order_at": None}, "as_of": EXAMPLE_TIME},
    "session": {"id": "auto-1", "started_at": EXAMPLE_TIME, "last_at": EXAMPLE_TIME,
                "active": True, "events": 1, "items_viewed": 1, "cart": [], "intent": "browse"},
    "interests": [{"kind": "item", "key": "A", "weight": 0.1, "long": 0.1, "short": 0.1,
                   "trend": "new", "evidence": {"view": 1, "cart": 0, "purchase": 0},
                   "first_at": EXAMPLE_TIME, "last_at": EXAMPLE_TIME, "as_of": EXAMPLE_TIME,
                   "title": "Product A"}],
    "affinities": {
        "brand": [],
        "price": {"mean_unit_price": None, "mean_order_value": None, "evidence": _NOTHING_PRICED},
        "promotion": {"discount_share": None, "promoted_line_share": None,
                      "evidence": _NOTHING_PRICED},
        "channel": {"shares": {}, "evidence": {"events": 0}},
    },
    "habits": {"hour_histogram": [0] * 12 + [1] + [0] * 11, "weekday_histogram": [0] * 5 + [1, 0],
               "peak": {"hour": 12, "hour_share": 1.0, "weekday": "Saturday",
                        "weekday_share": 1.0},
               "median_gap_days": None, "basket_size": None,
               "evidence": {"events": 1, "orders": 0, "gaps": 0}, "as_of": EXAMPLE_TIME},
    "cycles": [], "propensities": {}, "next_categories": None,
    "segments": [{"name": "lifecycle:visitor", "as_of": EXAMPLE_TIME}],
    "recent": [{"type": "view_item", "item_id": "A", "title": "Product A", "time": EXAMPLE_TIME}],
    "embedding": None,
    "provenance": {"feature_service": "profile_v1", "schema": 2, "model": None, "late_events": 0,
                   "as_of": EXAMPLE_TIME},
}  # fmt: skip
"""Of one view, as `tests/services/http/test_examples.py` asks for it; so are the others."""
_SEED = {
    "User ID": 123,
    "User Behavior": ["Browse Product A", "Purchase Product B"],
    "Updated User Profile": {
        "Interest": ["Product A", "Product B"], "Purchase History": ["Product B"]
    },
}  # fmt: skip
_SUMMARY = {
    "user_id": "123", "stage": "visitor", "segment": None, "last_seen": EXAMPLE_TIME,
    "rfm": {"recency_days": None, "orders_91d": 0, "spend_91d": 0.0, "orders": 0},
    "interests": ["Product A (1 view; last today)"], "brands": [],
    "habits": "Most active on Saturdays and around 12:00.", "intent": "browse",
    "interest_score": None, "version": 1, "as_of": EXAMPLE_TIME,
}  # fmt: skip

_TAGS = {"etag": {"description": "Changes with the profile", "schema": {"type": "string"}}}
PROFILE: dict[int | str, Any] = {
    200: {
        "model": Profile | Summary | Seed,
        "description": "The profile in the view that was asked for",
        "headers": _TAGS,
        "content": {
            "application/json": {
                "examples": {
                    "full": {"value": FULL},
                    "summary": {"value": _SUMMARY},
                    "seed": {"value": _SEED},
                }
            }
        },
    },
    304: {"description": "As the given If-None-Match says", "headers": _TAGS},
}
