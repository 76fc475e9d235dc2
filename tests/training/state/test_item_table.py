"""The repeat table against a naive one, with evictions."""

import random
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.state.item_table import COUNTS, RepeatTables, round_to_kept

CAPACITY = 6


class Naive:
    """One dict per item, folded the obvious way."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.events = 0

    def apply(self, time_ms: int, items: list[int]) -> None:
        self.events += 1
        others = sorted((i for i in self.rows if i not in items), key=self.weakness)
        fresh = [i for i in items if i not in self.rows]
        for gone in others[: max(0, len(self.rows) + len(fresh) - CAPACITY)]:
            del self.rows[gone]
        for item in items:
            row = self.rows.get(item)
            known = row is not None
            if row is None:
                row = dict.fromkeys(COUNTS, 0.0) | {"last": self.events, "at": time_ms}
                self.rows[item] = row
            passed, days = self.events - row["last"], (time_ms - row["at"]) / 86_400_000
            for name, gamma in (("decayed_95", 0.95), ("decayed_80", 0.8), ("decayed_97", 0.97)):
                row[name] = row[name] * gamma**passed + 1
            for name, scale in (("days_30", 30.0), ("days_120", 120.0)):
                row[name] = row[name] * float(np.exp(-days / scale)) + 1
            row["count"] += 1
            if known:
                row |= dict(
                    zip(
                        COUNTS, round_to_kept(np.array([row[n] for n in COUNTS], "f4")), strict=True
                    )
                )
            row["last"], row["at"] = self.events, time_ms

    def weakness(self, item: int) -> tuple[float, float, int]:
        row = self.rows[item]
        decayed = np.float32(row["decayed_97"]) * np.float32(0.97 ** (self.events - row["last"]))
        return float(decayed), row["last"], item


def baskets(seed: int) -> Iterator[tuple[int, list[int]]]:
    draw, time = random.Random(seed), 10**12
    for _ in range(40):
        time += draw.randrange(1, 20) * 3_600_000
        yield time, draw.sample(range(1, 13), draw.randrange(1, CAPACITY))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_table_is_the_naive_fold(seed: int) -> None:
    tables, naive = RepeatTables(2, CAPACITY), Naive()
    for time, items in baskets(seed):
        naive.apply(time, items)
        tables.apply(
            np.array([1]), np.array([time]), np.ones(1, np.float32), np.array([0, len(items)]),
            np.array(items),
        )  # fmt: skip
        rows = np.sort(tables.read_rows(1), order="item")
        assert rows["item"].tolist() == sorted(naive.rows)
        expected = [[naive.rows[i][name] for name in COUNTS] for i in sorted(naive.rows)]
        np.testing.assert_allclose(rows["counts"], expected, rtol=1e-4)


def test_rounding_is_close_and_settled() -> None:
    counts = np.exp(np.linspace(np.log(0.2), np.log(60), 600)).reshape(-1, 6).astype(np.float32)
    once = round_to_kept(counts)
    np.testing.assert_allclose(once, counts, rtol=0.012)
    np.testing.assert_array_equal(round_to_kept(once), once)


def test_a_basket_never_evicts_its_own_items() -> None:
    tables = RepeatTables(1, 200)
    zero = np.zeros(1, np.int64)
    for begin in (1, 101, 201):
        items = np.arange(begin, begin + 200) if begin < 201 else np.arange(201, 401)
        tables.apply(
            zero, np.array([begin * 1000]), np.ones(1, np.float32), np.array([0, 200]), items
        )
        assert set(items.tolist()) <= set(tables.read_rows(0)["item"].tolist())
