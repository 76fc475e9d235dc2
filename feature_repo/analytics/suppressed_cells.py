"""Suppressed cells: figures of a category and bucket that no question is ever shown.

Decided once over all categories: were it decided over those that one question names, two questions
could together show what each hides. Belongs here: laying `suppression.tree` over ``demand``.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from feature_repo.analytics.suppression import few, tree
from feature_repo.audiences.index import Index

CellKey = tuple[str, str, int]
"""Grain, type of event, bucket."""


class SuppressedCells:
    """What is hidden of ``demand``; shelf 0 is the total of all categories.

    A category without events in a bucket has no figures there and is shown as hidden.
    """

    def __init__(self, index: Index) -> None:
        self._shown = dict[CellKey, frozenset[int]]()
        self.shelves = {
            int(shelf): (int(level), str(path))
            for shelf, level, path in index.rows("SELECT shelf, level, path FROM shelves", {})
        }
        by_path = {path: shelf for shelf, (level, path) in self.shelves.items() if level == 1}
        self._parents = {
            shelf: by_path[path.partition("/")[0]]
            for shelf, (level, path) in self.shelves.items()
            if level == 2
        }
        found = defaultdict[CellKey, list[tuple[int, int, int]]](list)
        for grain, event_type, bucket, shelf, users, lines_m in index.rows(
            "SELECT grain, type, bucket, shelf, users, lines_m FROM demand", {}
        ):
            found[str(grain), str(event_type), int(bucket)].append(
                (int(shelf), int(users), int(lines_m))
            )
        for key, rows in found.items():
            self._shown[key] = self._decide(rows)

    def find_shown(self, grain: str, event_type: str, bucket: int) -> frozenset[int]:
        """Return the shelves whose figures in a bucket may be shown."""
        return self._shown.get((grain, event_type, bucket), frozenset())

    def _decide(self, rows: list[tuple[int, int, int]]) -> frozenset[int]:
        users = {shelf: number for shelf, number, _ in rows}
        money = {shelf: lines_m for shelf, _, lines_m in rows}
        top = [shelf for shelf in users if shelf and self.shelves[shelf][0] == 1]
        below = [shelf for shelf in users if shelf and self.shelves[shelf][0] == 2]
        index = {shelf: number for number, shelf in enumerate(top)}

        def column(of: dict[int, int], shelves: list[int]) -> Any:
            return np.array([of[shelf] for shelf in shelves], dtype=np.int64)

        hidden_top, hidden_below, total = tree(
            column(money, top),
            few(column(users, top)),
            np.array([index[self._parents[shelf]] for shelf in below], dtype=np.int64),
            column(money, below),
            few(column(users, below)),
        )
        shown = [s for s, hidden in zip(top, hidden_top, strict=True) if not hidden]
        shown += [s for s, hidden in zip(below, hidden_below, strict=True) if not hidden]
        if total and not few(np.array([users.get(0, 0)]))[0]:
            shown.append(0)
        return frozenset(shown)
