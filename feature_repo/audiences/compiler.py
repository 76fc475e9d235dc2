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
from feature_repo.audiences.event_sql import EventSql
from feature_repo.audiences.leaves import TraitTest
from feature_repo.audiences.sql_values import Values, join_conditions
from feature_repo.audiences.trait_sql import find_window, live_value
from feature_repo.features.catalogue import USER_VIEWS
from feature_repo.user_profile.compact import DAY_S
from feature_repo.user_profile.consent import spellings


@dataclass(frozen=True)
class Query:
    """A condition on ``facts x`` and what it needs.

    Attributes
    ----------
    prelude
        The WITH clause that must stand before a SELECT; empty as of now.
    condition
        True of the members.
    """

    prelude: str
    condition: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def count(self) -> str:
        """Return the SELECT of the number of members, of those who do not deny analytics."""
        counted = "x.u NOT IN (SELECT u FROM audience.uncounted)"
        return f"{self.prelude} SELECT count(*) FROM facts x WHERE ({self.condition}) AND {counted}"

    def members(self) -> str:
        """Return the SELECT of members' pseudonyms after ``$after``, at most ``$limit``, sorted."""
        return (
            f"{self.prelude} SELECT entity FROM facts x JOIN users USING (u) "
            f"WHERE entity > $after AND ({self.condition}) ORDER BY entity LIMIT $limit"
        )

    def holds(self) -> str:
        """Return the SELECT of 1 if ``$entity`` is a member, 0 if not."""
        return (
            f"{self.prelude} SELECT count(*) FROM facts x JOIN users USING (u) "
            f"WHERE entity = $entity AND ({self.condition})"
        )

    def select_scored(self) -> str:
        """Return the SELECT of all members, each with its score ``$score_name`` or null."""
        return (
            f"{self.prelude} SELECT entity, value FROM facts x JOIN users USING (u) LEFT JOIN "
            "(SELECT u, value FROM audience.scores WHERE name = $score_name) mine USING (u) "
            f"WHERE {self.condition}"
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
        made.values.parameter(now_ms, name="now_ms")
    return Query(prelude, condition, made.values.parameters)


class _Compiler:
    """Turns nodes into conditions, gathering their values as named parameters."""

    def __init__(self, known: Mapping[str, rules.Definition], now_ms: int, past: bool) -> None:
        self._known = known
        self._now_ms = now_ms
        self.values = Values()
        self._events = EventSql(self.values, now_ms, past)
        self.views: set[str] = set()
        self.scored = False

    def definition(self, definition: rules.Definition) -> str:
        parts = [self.node(definition.rule)]
        for purpose in definition.consent:
            one, other = map(self.values.parameter, spellings(purpose))
            parts.append(f"x.u IN ({tables.select_granting(one, other, self._now())})")
        parts += [f"NOT {self.node(node)}" for node in definition.exclude]
        return join_conditions(" AND ", parts)

    def node(self, node: Any) -> str:
        return _COMPILED[type(node)](self, node)

    def all(self, node: rules.All) -> str:
        return join_conditions(" AND ", [self.node(child) for child in node.all])

    def any(self, node: rules.AnyOf) -> str:
        return join_conditions(" OR ", [self.node(child) for child in node.any])

    def negation(self, node: rules.Not) -> str:
        return f"(NOT {self.node(node.not_)})"

    def audience(self, node: rules.InAudience) -> str:
        return self.definition(self._known[node.audience])

    def entities(self, node: rules.IsPseudonym) -> str:
        listed = self.values.parameter(node.entities)
        return f"x.u IN (SELECT u FROM users WHERE entity IN (SELECT unnest({listed}::VARCHAR[])))"

    def score(self, node: rules.HasScore) -> str:
        self.scored = True
        test = node.score
        mine = f"FROM scores WHERE name = {self.values.parameter(test.name)} AND value IS NOT NULL"
        if test.gte is not None:
            return f"x.u IN (SELECT u {mine} AND value >= {self.values.number(test.gte)})"
        share = f"ceil(count(*) * {self.values.number(test.top)} / 100)::BIGINT"
        return f"x.u IN (SELECT u {mine} ORDER BY value DESC, u LIMIT (SELECT {share} {mine}))"

    def trait(self, node: rules.HasTrait) -> str:
        test = node.trait
        trait = test.trait()
        if trait.view is not None:
            self.views.add(trait.view)
            condition = self._compile_trait(test, f'"{trait.name}"')
            return f"x.u IN (SELECT u FROM features_{trait.view} WHERE {condition})"
        days = find_window(trait.name)
        if days is None:
            return (
                f"coalesce({self._compile_trait(test, live_value(trait.name, self._now))}, false)"
            )
        column, many = days
        today = self._now_ms // 1000 // DAY_S
        recent = (
            f"FROM order_days WHERE day > {self.values.parameter(today - many)} "
            f"AND day <= {self.values.parameter(today)} GROUP BY u"
        )
        return self.values.aggregate(recent, column, test.bounds())

    def event(self, node: rules.HasEvent) -> str:
        return self._events.event(node.event)

    def sequence(self, node: rules.HasSequence) -> str:
        return self._events.sequence(node.sequence)

    def _compile_trait(self, test: TraitTest, value: str) -> str:
        trait_type = test.trait().kind
        if trait_type == "number":
            return self.values.within(test.bounds(), value)
        if trait_type == "flag":
            return f"{value} = {self.values.parameter(test.eq)}"
        if trait_type == "texts":
            listed = [self.values.parameter(text) for text in test.texts()]
            return f"list_has_any({value}, [{', '.join(listed)}])"
        both = [values for values in (test.in_, None if test.eq is None else [test.eq]) if values]
        return join_conditions(
            " AND ",
            [f"{value} IN ({', '.join(self.values.parameter(v) for v in some)})" for some in both],
        )

    def _now(self) -> str:
        return self.values.parameter(self._now_ms // 1000)


_COMPILED: Final[dict[type, Callable[[_Compiler, Any], str]]] = {
    rules.All: _Compiler.all,
    rules.AnyOf: _Compiler.any,
    rules.Not: _Compiler.negation,
    rules.HasTrait: _Compiler.trait,
    rules.HasEvent: _Compiler.event,
    rules.HasSequence: _Compiler.sequence,
    rules.HasScore: _Compiler.score,
    rules.InAudience: _Compiler.audience,
    rules.IsPseudonym: _Compiler.entities,
}


def _cut_off(made: _Compiler) -> str:
    """Return the WITH clause that cuts the tables off at ``$now_ms``."""
    until = "time_ms <= $now_ms"
    cut = {"retold": tables.select_retold(f"(SELECT * FROM audience.events WHERE {until})")}
    cut |= {name: tables.counted_until(name, until) for name in tables.COUNTED}
    cut["consents"] = tables.PAST_CONSENTS
    cut |= {"orders": tables.ORDERS, "order_days": tables.ORDER_DAYS, "facts": tables.FACTS}
    views = set(USER_VIEWS) if made.scored else made.views
    for view in sorted(views):
        until = "event_timestamp <= make_timestamptz($now_ms * 1000)"
        cut[f"features_{view}"] = tables.latest_features(view, until)
    if made.scored:
        propensities = "SELECT u, name, value FROM propensities WHERE as_of_ms <= $now_ms"
        cut["scores"] = tables.scores(propensities)
    return "WITH " + ", ".join(f"{name} AS ({select})" for name, select in cut.items())
