"""From a rule to SQL: its members as of a moment, out of the tables of an `index`.

A node becomes a condition on a row ``x`` of ``facts``; a leaf on events becomes membership in
a set of users. As of the past, tables of the same names are first cut off at that moment, so
the conditions are the same. Belongs here: what each node means in SQL. The tables are
`tables`', the meaning of traits in SQL `trait_sql`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from feature_repo.audiences import rules, tables
from feature_repo.audiences.trait_sql import live_value, windowed
from feature_repo.audiences.values import Bounds, duration_ms, moment_ms
from feature_repo.features import USER_VIEWS

DAY_S: Final = 86_400


@dataclass(frozen=True)
class Query:
    """A condition on ``facts x`` and what it needs.

    Attributes
    ----------
    prelude
        The WITH clause that must stand before a SELECT; empty as of now.
    condition
        True of the members.
    parameters
        Values by name.
    """

    prelude: str
    condition: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def count(self) -> str:
        """Return the SELECT of the number of members."""
        return f"{self.prelude} SELECT count(*) FROM facts x WHERE {self.condition}"

    def members(self) -> str:
        """Return the SELECT of members' entity ids after ``$after``, at most ``$limit``, sorted."""
        return (
            f"{self.prelude} SELECT entity FROM facts x JOIN users USING (u) "
            f"WHERE entity > $after AND ({self.condition}) ORDER BY entity LIMIT $limit"
        )


def compile_definition(
    definition: rules.Definition,
    known: Mapping[str, rules.Definition],
    *,
    now_ms: int,
    past: bool = False,
) -> Query:
    """Return the query of a definition's members.

    Parameters
    ----------
    definition
        Checked, with pseudonyms for user ids (`language.pseudonymous`).
    known
        Every audience that it names, and those that they name.
    now_ms
        Moment as of which, epoch milliseconds.
    past
        Whether events after ``now_ms`` are known, and must be left out.
    """
    made = _Compiler(known, now_ms, past)
    condition = made.definition(definition)
    prelude = _cut_off(made) if past else ""
    if past:
        made.parameter(now_ms, name="now_ms")
    return Query(prelude, condition, made.parameters)


class _Compiler:
    """Turns nodes into conditions, gathering their values as named parameters."""

    def __init__(self, known: Mapping[str, rules.Definition], now_ms: int, past: bool) -> None:
        self._known = known
        self._now_ms = now_ms
        self._past = past
        self.parameters: dict[str, Any] = {}
        self.views: set[str] = set()
        self.scored = False

    def parameter(self, value: Any, name: str = "") -> str:
        name = name or f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def definition(self, definition: rules.Definition) -> str:
        parts = [self.node(definition.rule)]
        parts += [
            f"x.u IN (SELECT u FROM ({tables.LATEST_CONSENT}) "
            f"WHERE granted AND purpose = {self.parameter(purpose)})"
            for purpose in definition.consent
        ]
        parts += [f"NOT {self.node(node)}" for node in definition.exclude]
        return _joined(" AND ", parts)

    def node(self, node: Any) -> str:
        return _COMPILED[type(node)](self, node)

    def all(self, node: rules.All) -> str:
        return _joined(" AND ", [self.node(child) for child in node.all])

    def any(self, node: rules.AnyOf) -> str:
        return _joined(" OR ", [self.node(child) for child in node.any])

    def negation(self, node: rules.Not) -> str:
        return f"(NOT {self.node(node.not_)})"

    def audience(self, node: rules.InAudience) -> str:
        return self.definition(self._known[node.audience])

    def entities(self, node: rules.IsEntity) -> str:
        listed = self.parameter(node.entities)
        return f"x.u IN (SELECT u FROM users WHERE entity IN (SELECT unnest({listed}::VARCHAR[])))"

    def score(self, node: rules.HasScore) -> str:
        self.scored = True
        test = node.score
        mine = f"FROM scores WHERE name = {self.parameter(test.name)} AND value IS NOT NULL"
        if test.gte is not None:
            return f"x.u IN (SELECT u {mine} AND value >= {self._number(test.gte)})"
        share = f"ceil(count(*) * {self._number(test.top)} / 100)::BIGINT"
        return f"x.u IN (SELECT u {mine} ORDER BY value DESC, u LIMIT (SELECT {share} {mine}))"

    def trait(self, node: rules.HasTrait) -> str:
        test = node.trait
        trait = test.trait()
        if trait.view is not None:
            self.views.add(trait.view)
            asked = self._asked(test, f'"{trait.name}"')
            return f"x.u IN (SELECT u FROM features_{trait.view} WHERE {asked})"
        days = windowed(trait.name)
        if days is None:
            return f"coalesce({self._asked(test, live_value(trait.name, self._now))}, false)"
        column, many = days
        today = self._now_ms // 1000 // DAY_S
        recent = (
            f"FROM order_days WHERE day > {self.parameter(today - many)} "
            f"AND day <= {self.parameter(today)} GROUP BY u"
        )
        return self._aggregate(recent, column, test.bounds())

    def event(self, node: rules.HasEvent) -> str:
        test = node.event
        source, columns = self._source(test)
        if test.sum is not None:
            return self._aggregate(source, columns[test.sum.of], test.sum)
        for name in ("first", "last"):
            bounds = getattr(test, name)
            if bounds is not None:
                return self._since(source, columns[name], bounds)
        bounds = test.count or Bounds(gte=1)
        if bounds.given() == [(">=", 1.0)]:
            return f"x.u IN (SELECT u {source})"
        return self._aggregate(source, columns["count"], bounds)

    def _source(self, test: rules.EventTest) -> tuple[str, Mapping[str, str]]:
        """Return FROM .. GROUP BY u of the matching events, and what sums are called there."""
        shelf = test.where.shelf()
        kind, ever = f"type = {self.parameter(test.type)}", not self._past and test.ever()
        worth = test.sum is not None and test.sum.of == "value"
        if shelf is not None and not worth:
            chosen = f"SELECT shelf FROM shelves WHERE path = {self.parameter(shelf)}"
            kind += f" AND shelf IN ({chosen})"
            if ever:
                return f"FROM shelf_totals WHERE {kind} GROUP BY u", _TOTALS
            return f"FROM shelf_events WHERE {kind}{self._span(test)} GROUP BY u", _EVENTS
        if ever and test.where.asks_nothing():
            return f"FROM event_totals WHERE {kind} GROUP BY u", _TOTALS
        by_line = test.where.asks_lines()
        found = self._matching(test, kind, by_line) + self._span(test)
        if by_line and worth:  # an event is worth its sum once
            found, by_line = f"e IN (SELECT e FROM lines WHERE {found})", False
        if by_line:
            return f"FROM lines WHERE {found} GROUP BY u", _LINES
        return f"FROM events WHERE {found} GROUP BY u", _EVENTS

    def _span(self, test: rules.EventTest) -> str:
        """Return the condition on time, with AND before it."""
        found = ""
        if test.within is not None:
            found += f" AND time_ms > {self.parameter(self._now_ms - duration_ms(test.within))}"
        if test.between is not None:
            start, end = (self.parameter(moment_ms(each)) for each in test.between)
            found += f" AND time_ms >= {start} AND time_ms < {end}"
        return found

    def _since(self, source: str, moment: str, bounds: Bounds) -> str:
        now = self.parameter(self._now_ms // 1000)
        days = f"greatest(0, {now} - {moment} // 1000) / {DAY_S}::DOUBLE"
        return f"x.u IN (SELECT u {source} HAVING {self._within(bounds, days)})"

    def _aggregate(self, source: str, value: str, bounds: Bounds) -> str:
        """Return the condition on a figure that is 0 for users without a row."""
        holds = self._within(bounds, value)
        if bounds.hold(0):
            return f"x.u NOT IN (SELECT u {source} HAVING NOT ({holds}))"
        return f"x.u IN (SELECT u {source} HAVING {holds})"

    def sequence(self, node: rules.HasSequence) -> str:
        test = node.sequence
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
            found = (
                f"SELECT * FROM ({found}) WHERE then_ms <= start_ms + {self.parameter(within_ms)}"
            )
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
        asked = ["then_ms > start_ms"]  # the first of several at one time has an earlier one before
        if within_ms is not None:
            asked.append(f"then_ms <= start_ms + {self.parameter(within_ms)}")
        if since_ms is not None:
            asked.append(f"then_ms > {self.parameter(since_ms)}")
        pairs = f"SELECT u, time_ms AS then_ms, {before} AS start_ms FROM ({step})"
        return f"x.u IN (SELECT u FROM ({pairs}) WHERE {' AND '.join(asked)})"

    def _step(self, step: rules.Step, since_ms: int | None) -> str:
        by_line = step.where.asks_lines()
        found = self._matching(step, f"type = {self.parameter(step.type)}", by_line)
        if since_ms is not None:
            found += f" AND time_ms > {self.parameter(since_ms)}"
        return f"SELECT u, time_ms FROM {'lines' if by_line else 'events'} WHERE {found}"

    def _matching(self, step: rules.Step, kind: str, by_line: bool) -> str:
        of_event = self._fields(step.where, lines=False)
        if not by_line:
            return " AND ".join([kind, *of_event])
        found = [kind]
        if of_event:
            chosen = " AND ".join([kind, *of_event])
            found.append(f"e IN (SELECT e FROM events WHERE {chosen})")
        goods = [self._text(name, texts) for name, texts in step.where.texts(lines=True).items()]
        if goods:
            found.append(f"good IN (SELECT good FROM goods WHERE {' AND '.join(goods)})")
        return " AND ".join([*found, *self._numbers(step.where, lines=True)])

    def _fields(self, where: rules.Where, *, lines: bool) -> list[str]:
        texts = [self._text(name, texts) for name, texts in where.texts(lines=lines).items()]
        return texts + self._numbers(where, lines=lines)

    def _numbers(self, where: rules.Where, *, lines: bool) -> list[str]:
        bounds = where.numbers(lines=lines)
        return [f"coalesce({self._within(each, name)}, false)" for name, each in bounds.items()]

    def _text(self, name: str, texts: list[str]) -> str:
        if name == "category":
            below = " OR ".join(
                f"category = {each} OR starts_with(category, {each} || '/')"
                for each in (self.parameter(text) for text in texts)
            )
            return f"({below})"
        return f"{name} IN (SELECT unnest({self.parameter(texts)}::VARCHAR[]))"

    def _asked(self, test: rules.TraitTest, value: str) -> str:
        kind = test.trait().kind
        if kind == "number":
            return self._within(test.bounds(), value)
        if kind == "flag":
            return f"{value} = {self.parameter(test.eq)}"
        if kind == "texts":
            listed = [self.parameter(text) for text in test.texts()]
            return f"list_has_any({value}, [{', '.join(listed)}])"
        both = [values for values in (test.in_, None if test.eq is None else [test.eq]) if values]
        return _joined(
            " AND ",
            [f"{value} IN ({', '.join(self.parameter(v) for v in some)})" for some in both],
        )

    def _within(self, bounds: Bounds, value: str) -> str:
        found = [f"{value} {sign} {self._number(bound)}" for sign, bound in bounds.given()]
        return _joined(" AND ", found)

    def _number(self, value: float | None) -> str:
        return f"{self.parameter(value)}::DOUBLE"

    def _now(self) -> str:
        return self.parameter(self._now_ms // 1000)


_EVENTS: Final = {
    "count": "count(*)", "first": "min(time_ms)", "last": "max(time_ms)",
    "value": "sum(amount_m)::BIGINT / 1000::DOUBLE",
    "amount": "sum(lines_m)::BIGINT / 1000::DOUBLE",
    "quantity": "sum(quantity_m)::BIGINT / 1000::DOUBLE",
}  # fmt: skip
_LINES: Final = _EVENTS | {
    "count": "count(DISTINCT e)", "quantity": f"sum({tables.QUANTITY_M})::BIGINT / 1000::DOUBLE",
}  # fmt: skip
_TOTALS: Final = _EVENTS | {
    "count": "sum(num)::BIGINT", "first": "min(first_ms)", "last": "max(last_ms)",
}  # fmt: skip
"""Figures of a group of rows, by what a rule asks for."""

_COMPILED: Final[dict[type, Callable[[_Compiler, Any], str]]] = {
    rules.All: _Compiler.all,
    rules.AnyOf: _Compiler.any,
    rules.Not: _Compiler.negation,
    rules.HasTrait: _Compiler.trait,
    rules.HasEvent: _Compiler.event,
    rules.HasSequence: _Compiler.sequence,
    rules.HasScore: _Compiler.score,
    rules.InAudience: _Compiler.audience,
    rules.IsEntity: _Compiler.entities,
}


def _joined(sign: str, parts: list[str]) -> str:
    return f"({sign.join(parts)})"


def _cut_off(made: _Compiler) -> str:
    """Return the WITH clause that cuts the tables off at ``$now_ms``."""
    cut = {
        name: f"SELECT * FROM audience.{name} WHERE time_ms <= $now_ms"
        for name in ("events", "lines", "shelf_events", "consents")
    }
    cut |= {"orders": tables.ORDERS, "order_days": tables.ORDER_DAYS, "facts": tables.FACTS}
    views = set(USER_VIEWS) if made.scored else made.views
    for view in sorted(views):
        until = "event_timestamp <= make_timestamptz($now_ms * 1000)"
        cut[f"features_{view}"] = tables.latest_features(view, until)
    if made.scored:
        chances = "SELECT u, name, value FROM chances WHERE as_of_ms <= $now_ms"
        cut["scores"] = tables.scores(chances)
    return "WITH " + ", ".join(f"{name} AS ({select})" for name, select in cut.items())
