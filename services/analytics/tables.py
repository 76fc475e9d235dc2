"""Answers of behaviour analysis as flat tables, for CSV: one function a kind.

Belongs here: which columns a table has. Hidden figures are empty cells; every row bears the
moment that it is of.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from services.runtime.spreadsheet import write_rows

Row = dict[str, Any]


def write(path: Path, name: str, answer: dict[str, Any]) -> None:
    """Write an answer to a CSV file; ``name`` is a key of `TABLES`."""
    rows = [{"as_of": answer["as_of"], **row} for row in TABLES[name](answer)]
    with path.open("w", newline="") as file:
        columns = list(rows[0]) if rows else ["as_of"]
        write_rows(file, [columns, *([row.get(name) for name in columns] for row in rows)])


def _sides(interval: Any, name: str = "interval") -> Row:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _with_sides(row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name != "interval"}
    return {**kept, **_sides(row.get("interval"))}


def _trends(answer: dict[str, Any]) -> Iterator[Row]:
    for series in answer["series"]:
        changed = {each["at"]: each for each in series["change_points"] or []}
        for point in series["points"]:
            change = changed.get(point["start"], {})
            yield {
                "category": series["category"] or "", "start": point["start"],
                "users": point["users"], **_sides(point["users_interval"], "users"),
                "events": point["events"], "amount": point["amount"],
                "change_ratio": change.get("ratio"),
                **_sides(change.get("interval"), "change_ratio"), "change_p": change.get("p"),
            }  # fmt: skip


def _drift(answer: dict[str, Any]) -> Iterator[Row]:
    nothing = dict.fromkeys(("users_before", "users_after", "share_before", "share_after"))
    for each in answer["months"]:
        yield {"what": "moved", "of": each["start"], "users": each["users"],
               "value": each["mean"], **_sides(each["interval"]), **nothing}  # fmt: skip
    for direction in ("rising", "falling"):
        for each in answer[direction]:
            yield {"what": direction, "of": each["category"], "users": answer["users"],
                   "value": each["change"], **_sides(each["interval"]),
                   **{name: each[name] for name in nothing}}  # fmt: skip


def _retention(answer: dict[str, Any]) -> Iterator[Row]:
    for cohort in answer["cohorts"]:
        for cell in cohort["cells"]:
            yield {"cohort": cohort["start"], "began_before": cohort["began_before"],
                   "cohort_users": cohort["users"], **_with_sides(cell)}  # fmt: skip


def _funnel(answer: dict[str, Any]) -> Iterator[Row]:
    for number, step in enumerate(answer["steps"], start=1):
        row = {"step": number, "type": step["type"], "users": step["users"]}
        for name in ("of_first", "of_previous"):
            rate = step[name] or {}
            row |= {name: rate.get("share"), **_sides(rate.get("interval"), name)}
        yield {**row, "median_hours": step["median_hours"]}


def _flat(name: str) -> Callable[[dict[str, Any]], Iterator[Row]]:
    """Return the table of an answer whose rows stand under ``name`` as they are."""
    return lambda answer: (_with_sides(each) for each in answer[name])


TABLES: Final[dict[str, Callable[[dict[str, Any]], Iterator[Row]]]] = {
    "trends": _trends, "drift": _drift, "retention": _retention, "funnel": _funnel,
    "rfm": _flat("cells"), "habits": _flat("cells"), "affinities": _flat("pairs"),
}  # fmt: skip
