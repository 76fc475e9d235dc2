"""Plan of a definition's upkeep: at each event, or in batch, and why.

Belongs here: which nodes a live profile can answer, and the reason where it cannot. A rule is
real-time when all of it is, its exclusions and the audiences it names included.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from feature_repo.audiences import rules
from feature_repo.audiences.leaves import EventTest
from feature_repo.audiences.references import nodes
from feature_repo.audiences.values import Node
from feature_repo.events.schema import CANONICAL_TYPES
from feature_repo.profile_views.shapes import Answer

Mode = Literal["realtime", "batch"]


class PlanReason(Answer):
    """A node that makes a rule a batch one, and why."""

    pointer: str
    reason: str


class Plan(Answer):
    """How an audience is kept up.

    Attributes
    ----------
    mode
        ``realtime``: members enter and leave at the event that does it. ``batch``: they are
        found by query, as of when it is asked.
    reasons
        ``[{"pointer", "reason"}]``: of a batch rule, every node that makes it one.
    time_passes
        Whether members also enter or leave as time passes, without an event; that is seen at
        their next event, or by query.
    """

    mode: Mode
    reasons: list[PlanReason]
    time_passes: bool


def plan(definition: rules.Definition, known: Mapping[str, rules.Definition]) -> Plan:
    """Return how a definition is kept up.

    Examples
    --------
    >>> from feature_repo.audiences.language import read
    >>> buyers = {"rule": {"event": {"type": "purchase", "count": {"gte": 3}}}, "consent": []}
    >>> plan(read(buyers), {})["mode"]
    'realtime'
    >>> buyers["rule"]["event"]["within"] = "28d"
    >>> plan(read(buyers), {})["reasons"][0]["pointer"]
    '/rule/event'
    """
    reasons, passes = list[PlanReason](), False
    for pointer, node in nodes(definition):
        if isinstance(node, rules.InAudience):
            other = plan(known[node.audience], known)
            passes |= other["time_passes"]
            if other["mode"] == "batch":
                why = f"audience {node.audience} is batch ({other['reasons'][0]['reason']})"
                reasons.append({"pointer": f"{pointer}/audience", "reason": why})
        for key, why in _reasons(node):
            reasons.append({"pointer": f"{pointer}/{key}", "reason": why})
        passes |= _passes(node)
    return {
        "mode": "batch" if reasons else "realtime", "reasons": reasons, "time_passes": passes,
    }  # fmt: skip


def _reasons(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(node, rules.HasScore):
        yield "score", "a score is computed for all users together, not at each event"
    elif isinstance(node, rules.HasSequence):
        yield "sequence", "a profile keeps no order of past events"
    elif isinstance(node, rules.HasTrait) and node.trait.trait().view is not None:
        yield (
            "trait",
            f"{node.trait.name} is a feature of the snapshots, made for all users together",
        )
    elif isinstance(node, rules.HasEvent):
        why = _event_reason(node.event)
        if why is not None:
            yield "event", why


def _event_reason(test: EventTest) -> str | None:
    if not test.where.asks_nothing():
        return "a profile does not keep the fields of past events"
    if test.within is not None or test.between is not None:
        return f"a profile counts {test.type} over all time, not within a span"
    if test.sum is not None:
        return "a profile keeps no such sum; orders.spend and rfm.monetary are real-time traits"
    if (test.first is not None or test.last is not None) and test.type != "purchase":
        return f"a profile keeps the first and last time of purchases, not of {test.type}"
    if test.type not in CANONICAL_TYPES:
        return f"{test.type} is a custom event: a profile counts only some of these by name"
    return None


def _passes(node: Node) -> bool:
    if isinstance(node, rules.HasTrait):
        return node.trait.trait().passes
    if isinstance(node, rules.HasSequence):
        return node.sequence.ended_within is not None
    if isinstance(node, rules.HasEvent):
        test = node.event
        return test.within is not None or test.first is not None or test.last is not None
    return False
