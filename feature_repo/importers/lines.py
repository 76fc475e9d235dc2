"""Lines: the table every source is converted to, and the checks each of its rows must pass.

A line is one row of the source in our names and units. `clean` splits lines into those that
pass every check and rejects with the first reason that applies. Not here: reading a source
(one module each) and making events out of lines (`assemble`).
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pandera.errors as pandera_errors
import pandera.pandas as pa

from feature_repo.events.placeholder_ids import is_nobody
from feature_repo.events.schema import ITEM_TYPES, MAX_FUTURE_MS, ORDER_TYPES

EARLIEST_IMPORTED_MS: Final = 631_152_000_000
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

MARK: Final = "reason"
"""Optional column with a source's own verdict ("" passes), e.g. ``non_merchandise``."""

AT_FAULT: Final = "at_fault"
"""Optional column: the column of the file that the source's own verdict is about."""

STATED: Final = "stated"
"""Optional column: whether the file itself gave the line its event's id."""

_OF_ONE_EVENT: Final = ("event_id", "user_id", "anonymous_id", "type", "time_ms", "order_id")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Lines that passed, and the verdict on the others.

    Attributes
    ----------
    lines
        Rows that passed every check, unchanged and in order.
    rejects
        Columns ``source_row``, ``reason``, ``column`` (of the file, where the source says so) and
        ``field`` at fault, a row per line that did not pass.
    """

    lines: pd.DataFrame
    rejects: pd.DataFrame


Rule = Callable[[pd.DataFrame], "pd.Series[bool]"]
"""Says per line whether it passes."""


def rules(now_ms: int) -> dict[str, Rule]:
    """Return the rules by reason, in the order in which a line's reason is looked for.

    Parameters
    ----------
    now_ms
        A line dated more than five minutes after this is impossible.
    """
    latest = now_ms + MAX_FUTURE_MS
    return {
        "missing_user": lambda f: _has(f, "user_id") | _has(f, "anonymous_id"),
        "nobody": lambda f: ~(_nobody(f, "user_id") | _nobody(f, "anonymous_id")),
        "unreadable_time": lambda f: f["time_ms"].notna(),
        "impossible_time": lambda f: (
            f["time_ms"].isna()
            | f["time_ms"].between(EARLIEST_IMPORTED_MS, latest).fillna(value=False)
        ),
        "unknown_type": lambda f: _has(f, "type"),
        "missing_item": lambda f: ~f["type"].isin(ITEM_TYPES) | _has(f, "item_id"),
        "missing_order": lambda f: ~f["type"].isin(ORDER_TYPES) | _has(f, "order_id"),
        "quantity_not_positive": lambda f: _above(f, "quantity", 0, strict=True),
        "negative_price": lambda f: _above(f, "price", 0) & _above(f, "discount", 0),
        "negative_value": lambda f: _above(f, "value", 0),
    }


FIELD_OF: Final = {
    "missing_user": "user_id", "nobody": "user_id", "unreadable_time": "time",
    "impossible_time": "time", "unknown_type": "type", "missing_item": "item_id",
    "missing_order": "order_id", "quantity_not_positive": "quantity", "negative_price": "price",
    "negative_value": "value", "non_merchandise": "is_merchandise", "other_type": "type",
}  # fmt: skip
"""The field at fault, by reason; `clean` says which of two it is."""


def find_repeated(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Say which lines an earlier one has made already.

    Either they are equal in everything, or a stated event id is that of an earlier line of
    another user, type, time or order.
    """
    again = frame.duplicated(identity(frame))
    if STATED not in frame:
        return again
    columns = [c for c in _OF_ONE_EVENT if c in frame]
    # A missing value never equals one that is there, whatever the column's type.
    keys = frame.groupby(columns, dropna=False, sort=False, observed=True).ngroup()
    first = keys.groupby(frame["event_id"]).transform("first")
    return again | (frame[STATED] & (keys != first))


def _has(frame: pd.DataFrame, column: str) -> "pd.Series[bool]":
    if column not in frame:
        return pd.Series(data=False, index=frame.index)
    return frame[column].notna() & (frame[column] != "")


def _nobody(frame: pd.DataFrame, column: str) -> "pd.Series[bool]":
    if column not in frame:
        return pd.Series(data=False, index=frame.index)
    values = frame[column]
    return values.isin([one for one in values.dropna().unique() if one and is_nobody(str(one))])


def _above(
    frame: pd.DataFrame, column: str, bound: float, *, strict: bool = False
) -> "pd.Series[bool]":
    if column not in frame:
        return pd.Series(data=True, index=frame.index)
    values = frame[column]
    return values.isna() | ((values > bound) if strict else (values >= bound))


def schema(now_ms: int, verdicts: "dict[str, pd.Series[bool]] | None" = None) -> pa.DataFrameSchema:
    """Return the schema of clean lines.

    Parameters
    ----------
    now_ms
        See `rules`.
    verdicts
        Filled with what each rule said of each line. (pandera's own failure table takes 0.2 ms
        a row, minutes for a file that is wrong throughout.)
    """

    def record_verdict(reason: str, rule: Rule) -> Rule:
        def check(frame: pd.DataFrame) -> "pd.Series[bool]":
            passed = rule(frame).astype(bool)
            if verdicts is not None:
                verdicts[reason] = passed
            return passed

        return check

    return pa.DataFrameSchema(
        {"source_row": pa.Column(int, unique=True)},
        checks=[
            pa.Check(record_verdict(reason, rule), name=reason, n_failure_cases=1)
            for reason, rule in rules(now_ms).items()
        ],
    )


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
    verdicts = dict[str, "pd.Series[bool]"]()
    with contextlib.suppress(pandera_errors.SchemaErrors):
        schema(now_ms, verdicts).validate(frame, lazy=True)
    reason = np.full(len(frame), "", dtype=object)
    if MARK in frame:
        reason[:] = frame[MARK].to_numpy()
    for name, passed in verdicts.items():
        reason[(reason == "") & ~passed.to_numpy()] = name
    # Only a line that passes can be repeated: one that is refused for itself makes no event.
    passing = np.flatnonzero(reason == "")
    reason[passing[find_repeated(frame.iloc[passing]).to_numpy()]] = "duplicate"
    bad = reason != ""
    rejects = pd.DataFrame({"source_row": frame.loc[bad, "source_row"], "reason": reason[bad]})
    rejects["column"] = frame.loc[bad, AT_FAULT] if AT_FAULT in frame else None
    rejects["field"] = _fields(frame.loc[bad], rejects["reason"])
    kept = frame.loc[~bad].drop(columns=[MARK, AT_FAULT], errors="ignore")
    return Cleaned(schema(now_ms).validate(kept), rejects.reset_index(drop=True))


def _fields(frame: pd.DataFrame, reasons: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return the field at fault of each line that does not pass."""
    fields = reasons.map(FIELD_OF).astype(object)
    other_user = (reasons == "nobody") & ~_nobody(frame, "user_id")
    other_amount = (reasons == "negative_price") & _above(frame, "price", 0)
    return fields.mask(other_user, "anonymous_id").mask(other_amount, "discount")
