"""Leaves on events in SQL: which events match, what is summed of them, in which order they came.

Belongs here: conditions over ``events``, ``lines``, ``shelf_events`` and the totals. What the
leaves mean is said in `leaves`.
"""

from collections.abc import Mapping
from typing import Final

from feature_repo.audiences import leaves
from feature_repo.audiences.sql_values import Values
from feature_repo.audiences.values import Bounds, duration_ms, moment_ms
from feature_repo.user_profile.compact import DAY_S

_EVENTS: Final = {
    "count": "count(*)", "first": "min(time_ms)", "last": "max(time_ms)",
    "value": "sum(amount_m)::BIGINT / 1000::DOUBLE",
    "amount": "sum(lines_m)::BIGINT / 1000::DOUBLE",
    "quantity": "sum(quantity_m)::BIGINT / 1000::DOUBLE",
}  # fmt: skip
_LINES: Final = _EVENTS | {"count": "count(DISTINCT e)"}
_TOTALS: Final = _EVENTS | {
    "count": "sum(num)::BIGINT", "first": "min(first_ms)", "last": "max(last_ms)",
}  # fmt: skip
"""Figures of a group of rows, by what a rule asks for."""


class EventSql:
    """Makes the conditions of one query.

    Parameters
    ----------
    now_ms
        Moment as of which, epoch milliseconds.
    past
        Whether the totals hold more than was then, and cannot be used.
    """

    def __init__(self, values: Values, now_ms: int, past: bool) -> None:
        self._values = values
        self._now_ms = now_ms
        self._past = past

    def event(self, test: leaves.EventTest) -> str:
        """Return the condition of an event leaf."""
        source, columns = self._source(test)
        if test.sum is not None:
            return self._values.aggregate(source, columns[test.sum.of], test.sum)
        for name in ("first", "last"):
            bounds = getattr(test, name)
            if bounds is not None:
                return self._since(source, columns[name], bounds)
        bounds = test.count or Bounds(gte=1)
        if bounds.to_signs() == [(">=", 1.0)]:
            return f"x.u IN (SELECT u {source})"
        return self._values.aggregate(source, columns["count"], bounds)

    def _source(self, test: leaves.EventTest) -> tuple[str, Mapping[str, str]]:
        """Return FROM .. GROUP BY u of the matching events, and what sums are called there."""
        shelf = test.where.shelf()
        condition = f"type = {self._values.parameter(test.type)}"
        ever = not self._past and test.ever()
        worth = test.sum is not None and test.sum.of == "value"
        if shelf is not None and not worth:
            chosen = f"SELECT shelf FROM shelves WHERE path = {self._values.parameter(shelf)}"
            condition += f" AND shelf IN ({chosen})"
            if ever:
                return f"FROM shelf_totals WHERE {condition} GROUP BY u", _TOTALS
            return f"FROM shelf_events WHERE {condition}{self._span(test)} GROUP BY u", _EVENTS
        if ever and test.where.asks_nothing():
            return f"FROM event_totals WHERE {condition} GROUP BY u", _TOTALS
        by_line = test.where.asks_lines()
        found = self._matching(test, condition, by_line) + self._span(test)
        if by_line and worth:  # an event is worth its sum once
            found, by_line = f"e IN (SELECT e FROM lines WHERE {found})", False
        if by_line:
            return f"FROM lines WHERE {found} GROUP BY u", _LINES
        return f"FROM events WHERE {found} GROUP BY u", _EVENTS

    def _span(self, test: leaves.EventTest) -> str:
        """Return the condition on time, with AND before it."""
        found = ""
        if test.within is not None:
            found += (
                f" AND time_ms > {self._values.parameter(self._now_ms - duration_ms(test.within))}"
            )
        if test.between is not None:
            start, end = (self._values.parameter(moment_ms(each)) for each in test.between)
            found += f" AND time_ms >= {start} AND time_ms < {end}"
        return found

    def _since(self, source: str, moment: str, bounds: Bounds) -> str:
        now = self._values.parameter(self._now_ms // 1000)
        days = f"greatest(0, {now} - {moment} // 1000) / {DAY_S}::DOUBLE"
        return f"x.u IN (SELECT u {source} HAVING {self._values.within(bounds, days)})"

    def sequence(self, test: leaves.SequenceTest) -> str:
        """Return the condition of a sequence leaf."""
        within_ms = None if test.within is None else duration_ms(test.within)
        since_ms = (
            None if test.ended_within is None else self._now_ms - duration_ms(test.ended_within)
        )
        earliest = None if since_ms is None or within_ms is None else since_ms - within_ms
        if test.without is None and test.start == test.then:
            return self._again(self._step(test.start, earliest), within_ms, since_ms)
        start, then = self._step(test.start, earliest), self._step(test.then, since_ms)
        found = (
            f"SELECT a.u AS u, a.time_ms AS start_ms, b.time_ms AS then_ms "
            f"FROM ({start} AND u IN (SELECT u FROM ({then}))) a "
            f"ASOF JOIN ({then}) b ON a.u = b.u AND a.time_ms < b.time_ms"
        )
        if within_ms is not None:
            latest = f"start_ms + {self._values.parameter(within_ms)}"
            found = f"SELECT * FROM ({found}) WHERE then_ms <= {latest}"
        if test.without is None:
            return f"x.u IN (SELECT u FROM ({found}))"
        return (
            f"x.u IN (SELECT s.u FROM ({found}) s "
            f"ASOF LEFT JOIN ({self._step(test.without, earliest)}) c "
            "ON s.u = c.u AND s.start_ms < c.time_ms "
            "WHERE c.time_ms IS NULL OR c.time_ms >= s.then_ms)"
        )

    def _again(self, step: str, within_ms: int | None, since_ms: int | None) -> str:
        """Return the condition on users of whom one step happened twice; cheaper than a join."""
        before = "lag(time_ms) OVER (PARTITION BY u ORDER BY time_ms)"
        # The first of several at one time has an earlier one before.
        conditions = ["then_ms > start_ms"]
        if within_ms is not None:
            conditions.append(f"then_ms <= start_ms + {self._values.parameter(within_ms)}")
        if since_ms is not None:
            conditions.append(f"then_ms > {self._values.parameter(since_ms)}")
        pairs = f"SELECT u, time_ms AS then_ms, {before} AS start_ms FROM ({step})"
        return f"x.u IN (SELECT u FROM ({pairs}) WHERE {' AND '.join(conditions)})"

    def _step(self, step: leaves.Step, since_ms: int | None) -> str:
        by_line = step.where.asks_lines()
        found = self._matching(step, f"type = {self._values.parameter(step.type)}", by_line)
        if since_ms is not None:
            found += f" AND time_ms > {self._values.parameter(since_ms)}"
        return f"SELECT u, time_ms FROM {'lines' if by_line else 'events'} WHERE {found}"

    def _matching(self, step: leaves.Step, condition: str, by_line: bool) -> str:
        of_event = self._fields(step.where, lines=False)
        if not by_line:
            return " AND ".join([condition, *of_event])
        found = [condition]
        if of_event:
            chosen = " AND ".join([condition, *of_event])
            found.append(f"e IN (SELECT e FROM events WHERE {chosen})")
        goods = [self._text(name, texts) for name, texts in step.where.texts(lines=True).items()]
        if goods:
            found.append(f"good IN (SELECT good FROM goods WHERE {' AND '.join(goods)})")
        return " AND ".join([*found, *self._numbers(step.where, lines=True)])

    def _fields(self, where: leaves.Where, *, lines: bool) -> list[str]:
        texts = [self._text(name, texts) for name, texts in where.texts(lines=lines).items()]
        return texts + self._numbers(where, lines=lines)

    def _numbers(self, where: leaves.Where, *, lines: bool) -> list[str]:
        bounds = where.numbers(lines=lines)
        return [
            f"coalesce({self._values.within(each, name)}, false)" for name, each in bounds.items()
        ]

    def _text(self, name: str, texts: list[str]) -> str:
        if name == "category":
            below = " OR ".join(
                f"category = {each} OR starts_with(category, {each} || '/')"
                for each in (self._values.parameter(text) for text in texts)
            )
            return f"({below})"
        return f"{name} IN (SELECT unnest({self._values.parameter(texts)}::VARCHAR[]))"
