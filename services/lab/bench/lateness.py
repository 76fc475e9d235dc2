"""Lateness of events in profiles: histories folded in log order and in order of event time.

A profile is the fold of the log as it came, so events that came late may leave another one than
the same events in time would have. This measures by how much, on an archive and offline. Where
events never came late, some are displaced first.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.profile_views import metrics
from feature_repo.user_profile import explicit
from services.lab.bench.rows import chunks

SHARES: Final = (0.01, 0.05, 0.2)
MOST_HOURS: Final = 72.0
"""Events older than that are not taken on the live endpoints."""
TOP: Final = 10
_SEED: Final = 1

Tell = Callable[[int, int, str], None]
Histories = Mapping[str, Sequence[EventRecord]]
Rank = Callable[[Histories], dict[str, set[str]]]
"""Gives the items that a model puts first for each user."""


def measure_lateness(archive: Archive, tell: Tell, model: Path | None = None) -> dict[str, Any]:
    """Return the differences for the archive as it is, and with `SHARES` of its events displaced.

    Parameters
    ----------
    archive
        Whose histories; only read.
    model
        Model directory; with it the first `TOP` recommended items are compared as well.
    """
    rank = None if model is None else _rank(model)
    as_it_came = differences(archive, tell=tell, rank=rank)
    return {"as it came": as_it_came} | {
        f"{share:.0%} displaced": differences(archive, share=share, tell=tell, rank=rank)
        for share in SHARES
    }


def displace(
    history: Sequence[EventRecord], share: float, rng: np.random.Generator
) -> list[EventRecord]:
    """Return a history in the order in which it comes in when a share of it is late.

    Parameters
    ----------
    share
        Probability that an event comes late, by 0 to `MOST_HOURS` hours, each delay as likely.

    Examples
    --------
    >>> events = [
    ...     EventRecord(id=str(n), type="login", user="u", time_ms=n * 3_600_000, received_ms=0)
    ...     for n in range(4)
    ... ]
    >>> [event.id for event in displace(events, 1.0, np.random.default_rng(3))]
    ['0', '1', '3', '2']
    """
    late_ms = rng.uniform(0, MOST_HOURS * 3_600_000, len(history))
    late_ms[rng.random(len(history)) >= share] = 0
    arrivals = np.array([event.time_ms for event in history]) + late_ms
    return [history[index] for index in np.argsort(arrivals, kind="stable")]


def differences(
    archive: Archive, *, share: float = 0.0, tell: Tell, rank: Rank | None = None
) -> dict[str, Any]:
    """Fold every history both ways and return how the profiles differ.

    Returns
    -------
    dict
        ``events``; ``late``, the share of events behind one of a later time; ``users`` and
        ``users_differ``, the share whose profile has other bytes (the count of late events
        left out). ``one_sided``: share of interests that only one side holds; ``weight_p95``
        and ``weight_max``: relative difference of the others' long weights.
        ``orders_differ``: share of users whose number of orders differs; ``spend_max``:
        largest relative difference of their spend. With ``rank``, ``top_10_kept``: mean
        share of the first items that both sides name.
    """
    rng = np.random.default_rng(_SEED)
    counts = np.zeros(4, dtype=np.int64)  # events, late, users that differ, orders that differ
    interests, one_sided = 0, 0
    weights, spends, kept = list[float](), list[float](), list[float]()
    for chunk in chunks(archive.histories()):
        came = {u: displace(h, share, rng) if share else list(h) for u, h in chunk.items()}
        in_time = {u: sorted(h, key=lambda event: event.time_ms) for u, h in chunk.items()}
        for user, history in came.items():
            a, b = explicit.fold(history), explicit.fold(in_time[user])
            late, a.late, b.late = a.late, 0, 0
            differ = explicit.encode(a) != explicit.encode(b)
            counts += (len(history), late, differ, a.orders.count != b.orders.count)
            left, right = _weights(a), _weights(b)
            interests += len(left | right)
            one_sided += len(left.keys() ^ right.keys())
            weights += [_relative(left[key], right[key]) for key in left.keys() & right.keys()]
            spends.append(_relative(a.orders.spend, b.orders.spend))
        if rank is not None:
            firsts, others = rank(came), rank(in_time)
            kept += [len(firsts[user] & others[user]) / TOP for user in came]
        tell(len(spends), 0, f"users, {share:.0%} displaced")
    events, late, changed, orders = (int(count) for count in counts)
    result = {
        "events": events,
        "late": late / events,
        "users": len(spends),
        "users_differ": changed / len(spends),
        "one_sided": one_sided / max(1, interests),
        "weight_p95": float(np.percentile(weights or [0.0], 95)),
        "weight_max": max(weights, default=0.0),
        "orders_differ": orders / len(spends),
        "spend_max": max(spends),
    }
    if kept:
        result["top_10_kept"] = float(np.mean(kept))
    return {name: round(value, 6) for name, value in result.items()}


def _weights(profile: explicit.ExplicitProfile) -> dict[tuple[str, str], float]:
    found = metrics.interests(profile, profile.last_at)
    return {(one["kind"], one["key"]): one["long"] for one in found}


def _relative(a: float, b: float) -> float:
    largest = max(abs(a), abs(b))
    return abs(a - b) / largest if largest else 0.0


def _rank(path: Path) -> Rank:
    from services.models.transition import Transition
    from training.network.model_dir import load
    from training.scoring.scorer import Scorer
    from training.scoring.transition import LearnedTransition

    model = load(path)
    transition, scorer = Transition(LearnedTransition(model)), Scorer(model)
    items = model.vocabulary.items

    def rank(histories: Histories) -> dict[str, set[str]]:
        firsts = dict[str, set[str]]()
        for user, row in transition.fold(histories).items():
            scores = scorer.scores(row.learned or None, row.time_ms)
            firsts[user] = {items[index] for index in np.argpartition(-scores, TOP)[:TOP]}
        return firsts

    return rank
