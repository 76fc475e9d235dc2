"""Hand-made facts of requests and items, as of before each request.

How often and when the user had it, what else of its category they had, how it sells now, what its
neighbours say, how it fits the clock. Whatever is fitted (item-item rows, how often and after how
long an item is had again, its hours) is fitted on the training period, and for training requests
without the users of their fold, as else the answer would be in it. Counts of popularity are live:
as of the beginning of the day, all users' together.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.evaluation.baselines import EvaluationWindow
from training.history.sequences import Ints, clock_features, ranges
from training.history.vocabulary import DAY_MS
from training.lab.comparison.shop import Shop
from training.neighbours import item_rows

Floats = npt.NDArray[np.float32]

FOLDS: Final = 3
CHOSEN: Final = 40
"""Candidates by each of the quick scores."""
TABLE_CELLS: Final = 60_000_000
HALF_LIVES_DAYS: Final = (3.0, 7.0, 28.0, 112.0)
DENSE_ITEMS: Final = 6_000
"""Up to so many items EASE's rows are among the facts."""
HOURS: Final = 4
"""In which an item's share of the day is counted."""
_NEVER: Final = np.float32(np.nan)


class Facts:
    """What is known before requests.

    Parameters
    ----------
    shop
        Data set.
    timed
        Whether the time of a request is known; else facts are as of the user's last event.
    """

    chosen = CHOSEN

    def __init__(self, shop: Shop, timed: bool) -> None:
        self.shop, self.timed = shop, timed and shop.split.by_time
        weight = shop.histories.weight
        self.names = list[str]()
        self.positive: Ints = np.cumsum(weight > 0)
        self.event_of_line: Ints = np.repeat(np.arange(len(weight)), np.diff(shop.histories.lines))
        self.popularity = _Popularity(shop, self.event_of_line)
        self._fitted = {fold: _Fitted(self, fold) for fold in (None, *range(FOLDS))}

    def before(self, wanted: EvaluationWindow, fold: int | None) -> "Known":
        """Return what is known before requests; of the fitted, what lacks a fold of users."""
        return Known(self, wanted, self._fitted[fold])


class _Fitted:
    """What is fitted on the training period without one fold of the users."""

    def __init__(self, facts: Facts, fold: int | None) -> None:
        shop, histories = facts.shop, facts.shop.histories
        inside = shop.trained if fold is None else shop.trained & (shop.owner % FOLDS != fold)
        x = item_rows.interactions(histories, inside, shop.items)
        self.near = item_rows.top(item_rows.cosine(x, 10.0), 200)
        self.after = item_rows.transitions(histories, inside, shop.items)
        self.ease = item_rows.ease(x, 500.0) if shop.items <= DENSE_ITEMS else None
        event = facts.event_of_line
        used = inside[event] & (histories.weight[event] > 0) & (histories.item > 0)
        event, item = event[used], histories.item[used] - 1
        self.gap_days, self.again = _repeats(
            shop.owner[event], item, histories.time_ms[event] / DAY_MS, shop.items
        )
        hour, weekday = clock_features(histories.time_ms[event])
        self.hours = _lift(hour // HOURS, 24 // HOURS, item, shop.items)
        self.weekdays = _lift(weekday, 7, item, shop.items)


class Known:
    """What is known before some requests.

    Attributes
    ----------
    sources
        The quick scores, each of shape (P, N); the first orders what is no candidate.
    """

    def __init__(self, facts: Facts, wanted: EvaluationWindow, fitted: _Fitted) -> None:
        self._facts, self._wanted, self._fitted = facts, wanted, fitted
        histories = facts.shop.histories
        self._many, self._last = len(wanted.event), wanted.event - 1
        self._now = histories.time_ms[wanted.event if facts.timed else self._last]
        start = histories.starts[:-1][wanted.user]
        sizes = histories.lines[wanted.event] - histories.lines[start]
        line = ranges(histories.lines[start], sizes)
        request: Ints = np.repeat(np.arange(self._many), sizes)
        event = facts.event_of_line[line]
        kept = (histories.item[line] > 0) & (histories.weight[event] > 0)
        self._request, event = request[kept], event[kept]
        self._item: Ints = histories.item[line][kept] - 1
        self._time_ms = histories.time_ms[event]
        self._weight = histories.weight[event]
        self._since = facts.positive[self._last][self._request] - facts.positive[event]
        self._days = np.maximum(self._now[self._request] - self._time_ms, 0) / DAY_MS
        self._popular = facts.popularity.at(self._now)
        self._rows = self._neighbours()
        tie = 1e-6 * self._popular["popular_28"]
        faded = self._matrix(self._weight * 0.95**self._since).toarray()
        self.sources: list[Floats] = [
            faded + 1e-3 * self._popular["popular_28"], self._rows["after"] + tie,
            self._rows["near"] + tie, self._popular["popular_7"], self._popular["popular_112"],
        ]  # fmt: skip

    def of(self, request: Ints, item: Ints) -> Floats:
        """Return the facts of pairs, shape (R, facts)."""
        found = {
            **self._of_pair(request, item),
            **self._of_category(request, item),
            **{name: each[request, item] for name, each in self._popular.items()},
            **{name: each[request, item] for name, each in self._rows.items()},
            **{name: each[request] for name, each in self._of_user().items()},
            "again": self._fitted.again[item],
            **(self._of_clock(request, item) if self._facts.timed else {}),
        }
        self._facts.names = list(found)
        return np.stack([np.asarray(each, np.float32) for each in found.values()], axis=-1)

    def _matrix(self, weight: Any) -> Any:
        shape = (self._many, self._facts.shop.items)
        return sp.csr_matrix((weight.astype(np.float32), (self._request, self._item)), shape)

    def _neighbours(self) -> dict[str, Floats]:
        recent, wide = (self._matrix(self._weight * g**self._since) for g in (0.8, 0.95))
        found = {"after": recent @ self._fitted.after, "near": wide @ self._fitted.near}
        if self._fitted.ease is not None:
            found["ease"] = wide @ self._fitted.ease
        return {
            name: np.asarray(each.toarray() if sp.issparse(each) else each, np.float32)
            for name, each in found.items()
        }

    def _of_pair(self, request: Ints, item: Ints) -> dict[str, Any]:
        pairs = _Groups(self._request, self._item, self._facts.shop.items)
        wanted = pairs.find_groups(request, item)
        had = pairs.total(self._weight)
        last, first = pairs.last(self._days), pairs.first(self._days)
        gap = np.where(had > 1, (first - last) / np.maximum(had - 1, 1), _NEVER)
        faded = {
            **{f"faded_{g}": self._weight * g**self._since for g in (0.95, 0.8)},
            **{f"faded_{d}_days": self._weight * 0.5 ** (self._days / d) for d in (7, 30, 120)},
        }
        found = {name: pairs.total(each)[wanted] for name, each in faded.items()}
        usual = self._fitted.gap_days[item]
        expected = np.where(had[wanted] > 1, 0.5 * (gap[wanted] + usual), usual)
        best = np.full(self._many, 1e-6)
        np.maximum.at(best, request, found["faded_0.95"])
        return {
            **found, "had": had[wanted], "days": last[wanted], "gap": gap[wanted],
            "since": pairs.last(self._since)[wanted], "gap_days": usual,
            "due": last[wanted] / np.maximum(expected, 0.25),
            "share": had[wanted] / np.maximum(self._events(), 1)[request],
            "of_best": found["faded_0.95"] / best[request],
        }  # fmt: skip

    def _of_category(self, request: Ints, item: Ints) -> dict[str, Any]:
        category = self._facts.shop.vocabulary.item_category
        if not category.any():
            return {}
        groups = _Groups(self._request, category[self._item], int(category.max()) + 1)
        wanted = groups.find_groups(request, category[item])
        total = groups.total(self._weight)
        lines = np.bincount(self._request, self._weight, self._many)
        return {
            "category": category[item], "category_had": total[wanted],
            "category_share": total[wanted] / np.maximum(lines, 1)[request],
            "category_days": groups.last(self._days)[wanted],
            "category_faded": groups.total(self._weight * 0.5 ** (self._days / 30))[wanted],
            "category_recent": groups.total(self._weight * 0.5**self._since)[wanted],
        }  # fmt: skip

    def _events(self) -> Ints:
        """Return positive events before each request, shape (P,)."""
        positive, start = self._facts.positive, self._starts()
        out: Ints = positive[self._last] - np.where(start > 0, positive[start - 1], 0)
        return out

    def _starts(self) -> Ints:
        return self._facts.shop.histories.starts[:-1][self._wanted.user]

    def _of_user(self) -> dict[str, Any]:
        times, starts = self._facts.shop.histories.time_ms, self._starts()
        events = self._events()
        lines = np.bincount(self._request, self._weight, self._many)
        items = np.diff(self._matrix(self._weight).indptr)
        last, before = times[self._last], times[np.maximum(self._last - 1, starts)]
        return {
            "user_events": events, "user_items": items,
            "user_basket": lines / np.maximum(events, 1),
            "user_gap": (last - times[starts]) / DAY_MS / np.maximum(events - 1, 1),
            "user_last_gap": (last - before) / DAY_MS,
        }  # fmt: skip

    def _of_clock(self, request: Ints, item: Ints) -> dict[str, Any]:
        """Return the request's hour, weekday and wait, and how the item and the pair fit them."""
        hour, weekday = clock_features(self._now)
        past_hour, past_weekday = clock_features(self._time_ms)
        apart = np.abs(past_hour - hour[self._request])
        near = np.minimum(apart, 24 - apart) <= 2
        same = past_weekday == weekday[self._request]
        pairs = _Groups(self._request, self._item, self._facts.shop.items)
        wanted = pairs.find_groups(request, item)
        wait = self._now - self._facts.shop.histories.time_ms[self._last]
        return {
            "hour": hour[request], "weekday": weekday[request], "wait": (wait / DAY_MS)[request],
            "had_near_hour": pairs.total(near)[wanted], "had_on_weekday": pairs.total(same)[wanted],
            "hour_lift": self._fitted.hours[hour[request] // HOURS, item],
            "weekday_lift": self._fitted.weekdays[weekday[request], item],
        }  # fmt: skip


class _Groups:
    """Past lines by request and item or category; the index behind the last group is no group."""

    def __init__(self, request: Ints, column: Ints, columns: int) -> None:
        self._columns = columns
        self._key, self._group = np.unique(request * columns + column, return_inverse=True)

    def find_groups(self, request: Ints, column: Ints) -> Ints:
        """Return the group of each pair."""
        wanted = request * self._columns + column
        index: Ints = np.searchsorted(self._key, wanted)
        found = np.append(self._key, -1)[index] == wanted
        return np.where(found, index, len(self._key))

    def total(self, value: Any) -> Any:
        """Return the sum over each group."""
        return np.bincount(self._group, value, len(self._key) + 1)

    def last(self, value: Any) -> Any:
        """Return the value of each group's latest line: lines are in order."""
        out = np.full(len(self._key) + 1, _NEVER, np.float32)
        out[self._group] = value
        return out

    def first(self, value: Any) -> Any:
        """Return the value of each group's earliest line."""
        out = np.full(len(self._key) + 1, _NEVER, np.float32)
        out[self._group[::-1]] = value[::-1]
        return out


class _Popularity:
    """Decayed counts of target lines as of the beginning of each day."""

    def __init__(self, shop: Shop, event_of_line: Ints) -> None:
        histories = shop.histories
        self._first = int(histories.time_ms.min())
        until = shop.split.until_ms if shop.split.by_time else shop.split.train_until_ms
        days = int(until - self._first) // DAY_MS + 2
        self._step = max(1, -(-days * shop.items * len(HALF_LIVES_DAYS) // TABLE_CELLS))
        steps = days // self._step + 1
        known = (histories.item > 0) & histories.target[event_of_line]
        known &= histories.time_ms[event_of_line] < until
        at = self._at(histories.time_ms[event_of_line[known]], steps)
        ones = np.ones(int(known.sum()), np.float32)
        counts = sp.csr_matrix((ones, (at, histories.item[known] - 1)), (steps, shop.items))
        self._tables = list[Floats]()
        for half_life in HALF_LIVES_DAYS:
            table = np.zeros((steps + 1, shop.items), np.float32)
            for step in range(steps):
                kept = np.float32(0.5 ** (self._step / half_life))
                table[step + 1] = (table[step] + counts[step].toarray()[0]) * kept
            self._tables.append(table)

    def _at(self, time_ms: Ints, steps: int) -> Ints:
        out: Ints = np.minimum((time_ms - self._first) // DAY_MS // self._step, steps - 1)
        return out

    def at(self, time_ms: Ints) -> dict[str, Floats]:
        """Return the logs of the counts, and how the quick ones stand to the slow ones."""
        rows = self._at(time_ms, len(self._tables[0]) - 1)
        logs = [np.log1p(table[rows]) for table in self._tables]
        named = {f"popular_{h:.0f}": log for h, log in zip(HALF_LIVES_DAYS, logs, strict=True)}
        return named | {"drift_7_28": logs[1] - logs[2], "drift_28_112": logs[2] - logs[3]}


def _repeats(user: Ints, item: Ints, days: Any, items: int) -> tuple[Floats, Floats]:
    """Return after how many days, and how often per user, items are had again; each (N,)."""
    order = np.lexsort((days, item, user))
    user, item, days = user[order], item[order], days[order]
    again = (np.diff(user, prepend=-1) == 0) & (np.diff(item, prepend=-1) == 0)
    gaps = np.diff(days, prepend=0.0)[again]
    overall = float(np.median(gaps)) if len(gaps) else 30.0
    times = np.bincount(item[again], minlength=items)
    users = np.bincount(item[~again], minlength=items)
    gap = (np.bincount(item[again], gaps, items) + 5 * overall) / (times + 5)
    share = (times + 5 * len(gaps) / max(int(users.sum()), 1)) / (users + 5)
    return gap.astype(np.float32), share.astype(np.float32)


def _lift(slot: Ints, slots: int, item: Ints, items: int) -> Floats:
    """Return how much more often than others an item is had in a slot of time: logs, (S, N)."""
    counts = np.bincount(slot * items + item, minlength=slots * items).reshape(slots, items)
    share = counts.sum(axis=1, keepdims=True) / max(int(counts.sum()), 1) + 1e-9
    expected = counts.sum(axis=0, keepdims=True) * share
    out: Floats = np.log((counts + 20 * share) / (expected + 20 * share)).astype(np.float32)
    return out
