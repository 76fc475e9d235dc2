"""Coarse figures: no count, share or other measure gives an exact number of people away."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.analytics.coarse_figures import blur_figures
from services.audiences.coarse import STEP


def _funnel(first: int, second: int) -> dict[str, Any]:
    rate = {"share": round(second / first, 4), "interval": [0.1, 0.9]}
    return {
        "k": 20, "data": {"events": 149_558, "newest_event": None}, "within_hours": 720.0,
        "steps": [
            {"type": "view_item", "users": first, "of_first": None, "of_previous": None,
             "median_hours": None},
            {"type": "purchase", "users": second, "of_first": {**rate}, "of_previous": {**rate},
             "median_hours": 186.49},
        ],
    }  # fmt: skip


def test_a_funnel_of_one_more_is_the_same_answer() -> None:
    one, more = (blur_figures(_funnel(1546, users)) for users in (371, 372))
    assert one == more
    assert [step["users"] for step in one["steps"]] == [1545, 370]
    assert one["steps"][1]["of_first"]["share"] == round(370 / 1545, 4)
    assert one["steps"][1]["median_hours"] == 190.0
    assert (one["k"], one["within_hours"], one["data"]["events"]) == (20, 720.0, 149_558)


@given(st.integers(20, 3000), st.data())
def test_shares_are_of_rounded_counts(first: int, data: st.DataObject) -> None:
    second = data.draw(st.integers(1, first))
    cell = {"age": 1, "users": second, "share": second / first, "interval": [0.0, 1.0]}
    rfm = {"segment": None, "users": second, "share": round(second / first, 4), "interval": [0, 1]}
    found = blur_figures(
        {
            "cohorts": [{"start": "2017-01-01", "users": first, "cells": [{**cell}]}],
            "curve": [{**cell, "cohorts": 3, "of": first}],
        }
    )
    whole, part = found["cohorts"][0]["users"], found["cohorts"][0]["cells"][0]["users"]
    assert (whole % STEP, part % STEP) == (0, 0)
    assert abs(whole - first) <= STEP / 2
    for shown in (found["cohorts"][0]["cells"][0], found["curve"][0]):
        assert shown["share"] == round(part / whole, 4)
        assert shown["interval"][0] <= shown["share"] <= shown["interval"][1]
    assert (found["curve"][0]["age"], found["curve"][0]["cohorts"]) == (1, 3)
    grid = blur_figures({"cells": [{**rfm}], "row_totals": [first, None], "column_totals": []})
    assert grid["cells"][0]["users"] == part
    assert grid["row_totals"] == [whole, None]


def test_what_is_hidden_stays_hidden() -> None:
    hidden = {"age": 1, "users": None, "share": None, "interval": None}
    found = {"cohorts": [{"users": None, "cells": [hidden]}], "curve": [{**hidden, "of": None}]}
    assert blur_figures(found) == found
