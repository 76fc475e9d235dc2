"""Contributions of past events to the scores of items: whose they are, and by which half.

With a learned context the model is asked with each event left out; without one the explicit
profile is folded again without it. Belongs here: reading the history and putting the two
alike. Not here: the arithmetic (`training.scoring.attribution`), words (`event_text`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.archive.query_bounds import check
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile import explicit
from feature_repo.user_profile.order_memory import without_repeats
from services.context.context import Context
from services.history.recent_events import read_all
from services.http.answer_schemas import EventContribution, ExplanationMethod
from services.recommend.request_context import RequestContext
from services.recommend.score import ItemFacts, of_item
from services.recommend.user_context import UserContext
from services.runtime import workers

MAX_HISTORY: Final = 5_000
"""Events of a user that are read; with more, the oldest are left out and the answer says so."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contributions:
    """What events contributed to the scores of R items.

    Attributes
    ----------
    method
        ``leave_one_event_out`` of the model, or ``leave_one_event_out_of_profile``.
    items
        The items that have a score, R of them.
    events
        Events looked at, oldest first.
    values
        Shape (K, R).
    scores
        Shape (R,).
    of
        Events in the whole history.
    exact
        Whether the replayed history gives the very context that the row holds.
    memories
        Of each item, the memories' part by item of the history; empty without.
    popularity
        Of each item, what sells lately and just now adds.
    reranking
        Of each item, the facts by which trees moved it: name, value, amount.
    """

    method: ExplanationMethod
    items: list[str]
    events: list[EventRecord]
    values: Doubles
    scores: Doubles
    of: int
    exact: bool
    memories: list[dict[str, float]] = field(default_factory=list)
    popularity: list[float] = field(default_factory=list)
    reranking: list[list[tuple[str, float, float]]] = field(default_factory=list)


async def contributions(
    context: Context, request_context: RequestContext, items: Sequence[str], last: int
) -> Contributions:
    """Return what the last events of a user contributed to the scores of items.

    Parameters
    ----------
    items
        Item ids; those that have no score are left out.
    last
        Events looked at; the time taken grows with its square.

    Raises
    ------
    StoreUnavailableError
        If the log cannot be read.
    """
    assert request_context.pseudonym is not None
    linked = request_context.user.linked
    found = await read_all(context, request_context.pseudonym, linked, None, None, MAX_HISTORY + 1)
    whole = len(found) <= MAX_HISTORY
    history = [record for _, record in reversed(found[:MAX_HISTORY])]
    workers.HISTORY.free(found)
    try:
        if request_context.user.learned is not None:
            return await workers.HISTORY.run(
                _by_model, request_context, history, items, last, whole
            )
        facts = request_context.served.recommender.facts(items)
        return await workers.HISTORY.run(_by_profile, request_context, history, facts, last, whole)
    finally:
        workers.HISTORY.free(history)


def _by_model(
    request_context: RequestContext,
    history: list[EventRecord],
    items: Sequence[str],
    last: int,
    whole: bool,
) -> Contributions:
    from training.scoring.attribution import leave_one_out, memory_parts

    served = request_context.served
    model = served.model
    moving = without_repeats(history)
    known = [item for item in items if item in model.vocabulary.index]
    rows = [model.vocabulary.index[item] - 1 for item in known]
    found = leave_one_out(
        served.scorer, served.transition, moving, rows, now_ms=request_context.now_ms, last=last,
        user_features=request_context.user.user_features,
    )  # fmt: skip
    parts = memory_parts(
        served.scorer, found.state, rows, request_context.now_ms, request_context.user.user_features
    )
    names = model.vocabulary.items
    query = served.scorer.ask(
        found.state, request_context.now_ms, request_context.user.user_features
    )  # fmt: skip
    return Contributions(
        method="leave_one_event_out",
        items=known,
        events=[moving[n] for n in found.events],
        values=found.values,
        scores=found.scores,
        of=len(history),
        exact=whole and found.state == request_context.user.learned,
        memories=[
            {names[row]: float(v) for row, v in zip(part.items, part.values, strict=True)}
            for part in parts
        ] or [{} for _ in rows],
        popularity=[part.popularity for part in parts] or [0.0] * len(rows),
        reranking=[[] for _ in rows] if query is None else query.explain(rows),
    )  # fmt: skip


def _by_profile(
    request_context: RequestContext,
    history: list[EventRecord],
    facts: list[ItemFacts],
    last: int,
    whole: bool,
) -> Contributions:
    behaviour = [n for n, e in enumerate(history) if e.items and explicit.is_behaviour(e.type)]
    looked = behaviour[-last:]
    first = looked[0] if looked else len(history)
    before = explicit.encode(explicit.fold(history[:first]))

    def scores(events: list[EventRecord]) -> Doubles:
        check()
        profile = explicit.fold(events, explicit.decode(before))
        user = UserContext(profile, request_context.now_ms // 1000)
        return np.array([of_item(each, user) for each in facts])

    full = scores(history[first:])
    left_out = [
        scores([event for k, event in enumerate(history[first:], first) if k != n]) for n in looked
    ]
    values = np.array([full - each for each in left_out]).reshape(len(looked), len(facts))
    return Contributions(
        method="leave_one_event_out_of_profile",
        items=[each.item_id for each in facts],
        events=[history[n] for n in looked],
        values=values,
        scores=full,
        of=len(history),
        exact=whole,
    )


def to_response(
    found: Contributions, item: int, title: Callable[[str], str], now_ms: int, most: int
) -> list[EventContribution]:
    """Return the contributions to ``found.items[item]``, largest first, without those of 0."""
    from feature_repo.events.schema import iso
    from services.recommend.event_text import sentence

    about = found.items[item]
    column = found.values[:, item]
    order = [n for n in np.argsort(-np.abs(column), kind="stable") if column[n] != 0][:most]
    return [
        {
            "event_id": event.id,
            "type": event.type,
            "time": iso(event.time_ms),
            "items": [line.item_id for line in event.items],
            "contribution": round(float(column[n]), 6),
            "sentence": sentence(event, title, now_ms, about=[about]),
        }
        for n in order
        for event in [found.events[n]]
    ]
