"""Any table of events becomes histories, whatever its ids, returns and holes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.errors import InvalidInputError
from training.lab.comparison.datasets import by_time, events, leave_last, open_shop
from training.lab.comparison.tables import histories_of


def table(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_ids_of_any_kind_are_text() -> None:
    found, _ = histories_of(
        table(user_id=[1.0, 2.0, None, 1.0], item_id=["a", 7, "c", " a "], timestamp=[1, 2, 3, 4])
    )
    assert [user for user, _ in found] == ["1", "2"]
    assert [e.items[0].item_id for _, h in found for e in h] == ["a", "a", "7"]


def test_returns_are_left_out() -> None:
    found, _ = histories_of(
        table(
            user_id=[1, 1, 1],
            item_id=["a", "b", "c"],
            timestamp=[1, 2, 3],
            quantity=[1, -1, 2],
            event_type=["purchase", "purchase", "return"],
        )
    )
    assert [line.item_id for _, h in found for e in h for line in e.items] == ["a"]


def test_rows_of_one_order_or_one_moment_are_one_event() -> None:
    by_order, _ = histories_of(
        table(user_id=[1, 1, 1], item_id=list("abc"), timestamp=[1, 1, 1], order_id=["x", "x", "y"])
    )
    assert [len(e.items) for e in by_order[0][1]] == [2, 1]
    at_once, _ = histories_of(
        table(user_id=[1, 1, 1], item_id=list("abc"), timestamp=[1, 1, 2], event_type=["buy"] * 3)
    )
    assert [len(e.items) for e in at_once[0][1]] == [2, 1]
    rated, _ = histories_of(
        table(user_id=[1, 1], item_id=list("ab"), timestamp=[1, 1], event_type=["rating"] * 2)
    )
    assert [e.items[0].item_id for e in rated[0][1]] == ["a", "b"]


@pytest.mark.parametrize("unit", ["s", "ms", "text"])
def test_times_in_any_form(unit: str) -> None:
    forms: dict[str, list[object]] = {
        "s": [1_600_000_000, 1_600_000_060],
        "ms": [1_600_000_000_000, 1_600_000_060_000],
        "text": ["2020-09-13T12:26:40Z", "2020-09-13T12:27:40Z"],
    }
    found, timed = histories_of(table(user_id=[1, 1], item_id=["a", "b"], timestamp=forms[unit]))
    assert timed
    assert [e.time_ms for e in found[0][1]] == [1_600_000_000_000, 1_600_000_060_000]


def test_a_table_without_times_is_in_order_and_ends_together() -> None:
    found, timed = histories_of(table(user_id=[1, 1, 1, 2, 2], item_id=list("abcab")))
    assert not timed
    assert found[0][1][-1].time_ms == found[1][1][-1].time_ms
    split = leave_last(found)
    test = [[e for e in h if e.time_ms >= split.cut_off_ms] for _, h in found]
    train = [[e for e in h if e.time_ms < split.train_until_ms] for _, h in found]
    assert [len(h) for h in test] == [1, 1]
    assert [len(h) for h in train] == [1, 0]


def test_the_split_by_time_is_global() -> None:
    found, _ = histories_of(
        table(user_id=[n % 7 for n in range(100)], item_id=["a"] * 100, timestamp=list(range(100)))
    )
    split = by_time(found)
    assert (split.train_until_ms, split.cut_off_ms) == (80_000, 90_000)


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no column item_id"):
        histories_of(table(user_id=[1]))
    with pytest.raises(InvalidInputError, match="no event"):
        histories_of(table(user_id=[None], item_id=["a"]))
    with pytest.raises(InvalidInputError, match="not there"):
        events(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(InvalidInputError, match="no Parquet"):
        events(tmp_path / "bad.parquet")
    with pytest.raises(InvalidInputError, match="'nope'"):
        open_shop("nope", None)
    with pytest.raises(InvalidInputError, match="--data"):
        open_shop("events", None)


def test_items_and_users_new_in_the_test_do_no_harm(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [
        (f"u{draw.integers(40)}", f"i{draw.integers(15)}", 1_600_000_000 + n * 1000)
        for n in range(4000)
    ]
    rows += [(f"new{n}", "fresh", 1_604_000_000 + n) for n in range(30)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_parquet(
        tmp_path / "shop.parquet"
    )
    shop = events(tmp_path / "shop.parquet")
    assert "fresh" not in shop.vocabulary.items
    assert shop.items == 15
    assert not shop.masked


def test_a_folder_with_something_else_is_not_filled_with_complete_journey(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="holds no archive: name a state folder"):
        open_shop("completejourney_merchandise", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
