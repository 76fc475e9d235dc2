"""Lines: the table every source is converted to, and the checks each of its rows must pass.

A line is one row of the source in our names and units. `clean` splits lines into those that
pass every check and rejects with the first reason that applies. Not here: reading a source
(one module each) and making events out of lines (`assemble`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import pandera.errors as pandera_errors
import pandera.pandas as pa

from feature_repo.events import ITEM_TYPES, MAX_FUTURE_MS, ORDER_TYPES

EARLIEST_MS: Final = 631_152_000_000
"""1990-01-01: an older event time is a misread unit or a default value, not a sale."""

EVENT_COLUMNS: Final = (
    "event_id", "type", "user_id", "anonymous_id", "time_ms", "session_id", "order_id",
    "value", "currency", "coupon", "query", "url", "device", "channel", "tz", "rating",
    "recommendation_id", "campaign_id", "placement", "properties",
)  # fmt: skip
"""Columns that hold for a whole event; the first line of an event states them."""

ITEM_COLUMNS: Final = (
    "item_id", "quantity", "price", "category", "brand", "variant", "position", "discount",
    "item_coupon", "item_currency",
)  # fmt: skip
"""Columns of one line of an event."""

NUMBERS: Final = ("quantity", "price", "discount", "position", "value", "rating")

MARK: Final = "reason"
"""Optional column with a source's own verdict ("" passes), e.g. ``non_merchandise``."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Lines that passed, and the verdict on the others.

    Attributes
    ----------
    lines
        Rows that passed every check, unchanged and in order.
    rejects
        Columns ``source_row`` and ``reason``, one row per line that did not pass.
    """

    lines: pd.DataFrame
    rejects: pd.DataFrame


def checks(now_ms: int) -> tuple[tuple[str, pa.Check], ...]:
    """Return the checks in the order in which their reasons are given.

    Parameters
    ----------
    now_ms
        A line dated more than five minutes after this is impossible.
    """
    latest = now_ms + MAX_FUTURE_MS

    def marked(frame: pd.DataFrame) -> bool:
        return MARK in frame

    def has(column: str, frame: pd.DataFrame) -> pd.Series:
        if column not in frame:
            return pd.Series(False, index=frame.index)
        return frame[column].notna() & (frame[column] != "")

    def at_least(column: str, bound: float, frame: pd.DataFrame) -> pd.Series:
        if column not in frame:
            return pd.Series(True, index=frame.index)
        return frame[column].isna() | (frame[column] >= bound)

    def readable(column: str, frame: pd.DataFrame) -> pd.Series:
        flag = f"unreadable_{column}"
        return ~frame[flag] if flag in frame else pd.Series(True, index=frame.index)

    def positive_quantity(frame: pd.DataFrame) -> pd.Series:
        if "quantity" not in frame:
            return pd.Series(True, index=frame.index)
        return frame["quantity"].isna() | (frame["quantity"] > 0)

    rules = (
        ("missing_user", lambda f: has("user_id", f) | has("anonymous_id", f)),
        ("unreadable_time", lambda f: f["time_ms"].notna()),
        ("impossible_time", lambda f: f["time_ms"].isna() | f["time_ms"].between(EARLIEST_MS, latest)),
        ("unknown_type", lambda f: f["type"].notna()),
        ("missing_item", lambda f: ~f["type"].isin(ITEM_TYPES) | has("item_id", f)),
        ("missing_order", lambda f: ~f["type"].isin(ORDER_TYPES) | has("order_id", f)),
        ("unreadable_number", lambda f: np.logical_and.reduce([readable(c, f) for c in NUMBERS])),
        ("quantity_not_positive", positive_quantity),
        ("negative_price", lambda f: at_least("price", 0, f) & at_least("discount", 0, f)),
        ("duplicate", lambda f: ~f.duplicated(identity(f))),
    )
    del marked
    return tuple((name, pa.Check(rule, name=name)) for name, rule in rules)


def identity(frame: pd.DataFrame) -> list[str]:
    """Return the columns that make two lines the same line."""
    return [c for c in (*EVENT_COLUMNS, *ITEM_COLUMNS) if c in frame and c != "properties"]


def clean(frame: pd.DataFrame, *, now_ms: int) -> Cleaned:
    """Split lines into those that pass and those that do not, each with one reason.

    Parameters
    ----------
    frame
        Lines: ``source_row`` (unique), ``time_ms``, ``type`` and any of `EVENT_COLUMNS`,
        `ITEM_COLUMNS`, `MARK`.
    now_ms
        Wall clock, epoch milliseconds.
    """
    frame = frame.reset_index(drop=True)
    order = checks(now_ms)
    reason = np.full(len(frame), "", dtype=object)
    if MARK in frame:
        reason[:] = frame[MARK].to_numpy()
    schema = pa.DataFrameSchema(checks=[check for _, check in order])
    try:
        schema.validate(frame, lazy=True)
    except pandera_errors.SchemaErrors as failed:
        cases = failed.failure_cases
        for name, _ in order:
            rows = cases.loc[cases["check"] == name, "index"].dropna().astype(int).unique()
            fresh = rows[reason[rows] == ""]
            reason[fresh] = name
    bad = reason != ""
    rejects = pd.DataFrame({"source_row": frame.loc[bad, "source_row"], "reason": reason[bad]})
    kept = frame.loc[~bad].drop(columns=[MARK], errors="ignore")
    return Cleaned(kept, rejects.reset_index(drop=True))
