"""Rules answered the slow way, event by event, straight from what the language's page says."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retold import told

from feature_repo.audiences import leaves, rules
from feature_repo.audiences.live import User, trait_value
from feature_repo.audiences.values import duration_ms, moment_ms
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile.amounts import amount, line_amount
from feature_repo.user_profile.compact import pack_money
from feature_repo.user_profile.explicit import fold

Known = Mapping[str, rules.Definition]


class Shop:
    """A log and feature rows, as of a moment."""

    def __init__(
        self, log: Sequence[EventRecord], features: Mapping[str, Mapping[str, Any]],
        scores: Mapping[str, Mapping[str, float]], known: Known, now_ms: int,
    ) -> None:  # fmt: skip
        self.now_ms, self.known = now_ms, known
        self.features, self.scores = features, scores
        self.histories: dict[str, list[EventRecord]] = {}
        for event in log:
            self.histories.setdefault(event.user, []).append(event)
        self.instead = {
            each.event.id: each.instead_of
            for user in self.histories
            for each in told(self.histories[user]) if each.instead_of
        }  # fmt: skip
        self.profiles = {user: fold(events) for user, events in self.histories.items()}

    def members(self, definition: rules.Definition) -> set[str]:
        return {user for user in self.histories if self.has(definition, user)}

    def has(self, definition: rules.Definition, user: str) -> bool:
        granted = self.consents(user)
        return (
            all(granted.get(purpose, False) for purpose in definition.consent)
            and self.holds(definition.rule, user)
            and not any(self.holds(node, user) for node in definition.exclude)
        )

    def consents(self, user: str) -> dict[str, bool]:
        found: dict[str, tuple[int, bool]] = {}
        for event in self.histories[user]:
            told = event.consent
            if told is None and event.type == "consent_updated" and event.properties:
                told = {event.properties["purpose"]: event.properties["granted"]}
            if event.type == "message_unsubscribed":
                told = {**(told or {}), event.channel: False, f"marketing_{event.channel}": False}
            for name, granted in (told or {}).items():
                purpose = name.removeprefix("marketing_")
                said = min(event.time_ms, event.received_ms) // 1000, not granted
                found[purpose] = max(found.get(purpose, said), said)
        return {purpose: not denied for purpose, (_, denied) in found.items()}

    def holds(self, node: Any, user: str) -> bool:
        match node:
            case rules.All():
                return all(self.holds(child, user) for child in node.all)
            case rules.AnyOf():
                return any(self.holds(child, user) for child in node.any)
            case rules.Not():
                return not self.holds(node.not_, user)
            case rules.InAudience():
                return self.has(self.known[node.audience], user)
            case rules.IsPseudonym():
                return user in node.entities
            case rules.HasEvent():
                return self.event(node.event, user)
            case rules.HasSequence():
                return self.sequence(node.sequence, user)
            case rules.HasScore():
                return self.score(node.score, user)
            case rules.HasTrait():
                return self.trait(node.trait, user)
        raise AssertionError(node)

    def event(self, test: leaves.EventTest, user: str) -> bool:
        found = [e for e in self.histories[user] if matches(test, e)]
        if test.within is not None:
            found = [e for e in found if e.time_ms > self.now_ms - duration_ms(test.within)]
        if test.between is not None:
            start, end = map(moment_ms, test.between)
            found = [e for e in found if start <= e.time_ms < end]
        if test.sum is not None:
            total = 0
            for event in found:
                lines = [line for line in event.items if line_matches(test.where, line)]
                if test.sum.of == "value":
                    total += amount(event)
                    total -= amount(self.instead[event.id]) if event.id in self.instead else 0
                elif test.sum.of == "amount":
                    total += event.id not in self.instead and sum(
                        pack_money(line_amount(line.quantity, line.price, line.discount))
                        for line in lines
                    )
                elif event.id not in self.instead:
                    total += sum(round(line.quantity * 1000) for line in lines)
            return test.sum.hold(total / 1000)
        for bounds, pick in ((test.first, min), (test.last, max)):
            if bounds is not None:
                if not found:
                    return False
                at = pick(e.time_ms for e in found) // 1000
                return bounds.hold(max(0, self.now_ms // 1000 - at) / 86_400)
        return len(found) >= 1 if test.count is None else test.count.hold(len(found))

    def sequence(self, test: leaves.SequenceTest, user: str) -> bool:
        log = self.histories[user]
        longest = math.inf if test.within is None else duration_ms(test.within)
        since = -math.inf
        if test.ended_within is not None:
            since = self.now_ms - duration_ms(test.ended_within)
        between = [e.time_ms for e in log if test.without and matches(test.without, e)]
        return any(
            0 < b.time_ms - a.time_ms <= longest
            and b.time_ms > since
            and not any(a.time_ms < c < b.time_ms for c in between)
            for a in log if matches(test.start, a)
            for b in log if matches(test.then, b)
        )  # fmt: skip

    def score(self, test: leaves.ScoreTest, user: str) -> bool:
        scores = self.scores[test.name]
        if test.gte is not None:
            return scores.get(user, -math.inf) >= test.gte
        assert test.top is not None
        best = sorted(scores, key=lambda each: (-scores[each], each))
        return user in best[: math.ceil(len(best) * test.top / 100)]

    def trait(self, test: leaves.TraitTest, user: str) -> bool:
        trait = test.trait()
        if trait.view is None:
            value = trait_value(test.name, User(user, self.profiles[user], self.now_ms // 1000))
        else:
            value = self.features.get(user, {}).get(test.name)
        if value is None:
            return False
        if trait.kind == "number":
            return test.bounds().hold(value)
        if trait.kind == "texts":
            return bool(set(value) & set(test.contains or ()))
        return (test.eq is None or value == test.eq) and (test.in_ is None or value in test.in_)


def matches(step: leaves.Step, event: EventRecord) -> bool:
    where = step.where
    return (
        event.type == step.type
        and all(getattr(event, name) in texts for name, texts in where.texts(lines=False).items())
        and all(b.hold(getattr(event, name)) for name, b in where.numbers(lines=False).items())
        and (not where.asks_lines() or any(line_matches(where, line) for line in event.items))
    )


def line_matches(where: leaves.Where, line: ItemRecord) -> bool:
    for name, texts in where.texts(lines=True).items():
        value = getattr(line, name)
        if name == "category":
            if value is None or not any(value == t or value.startswith(t + "/") for t in texts):
                return False
        elif value not in texts:
            return False
    return all(b.hold(getattr(line, name)) for name, b in where.numbers(lines=True).items())
