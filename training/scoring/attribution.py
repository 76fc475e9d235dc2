"""Attribution of a score: the events behind it, one left out at a time, and what is remembered.

**Leave one out.** The contribution of event k to the score of item j is ``s_j(history) −
s_j(history without k)``, both scores the model's own of a state that was replayed event by
event: exact, not estimated. Contributions need not add up to the score.

**Memories by construction.** The memories' part of a score is a sum over the history's items i::

    Σ_m w_m(n) · φ_m[j],   φ_m[j] = Σ_i γ_m^{s_i} · B_m[i, j]

of which each i's summand is its own; of a channel that takes the logarithm, i gets its share of
the sum under it. These and the popularity's part add up exactly. Of a mixture
(`network.mixture`) that sum counts as far as it made the answer (its part of p), and evidence by
itself adds ``log p − log(p − its part)``, of which i gets its share.

Belongs here: numbers. Not here: whose events, and words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from feature_repo.events.schema import EventRecord
from training.neighbours.channels import CHANNEL_AT, CHANNELS, EPSILON, READ, Channels, fade_rows
from training.network.mixture import EVIDENCE
from training.network.network import statistics
from training.scoring.learned_state import Layout, LearnedStates
from training.scoring.scorer import Scorer
from training.scoring.transition import LearnedTransition
from training.state.item_table import Rows

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EventContributions:
    """Contributions of a history's last events.

    Attributes
    ----------
    events
        Indices into the history, oldest first; only events that the model consumes.
    values
        Of each event to each item's score, shape (K, R).
    scores
        With all events, shape (R,).
    state
        Of the whole history.
    """

    events: list[int]
    values: Doubles
    scores: Doubles
    state: bytes | None


def leave_one_out(
    scorer: Scorer,
    transition: LearnedTransition,
    history: Sequence[EventRecord],
    rows: Sequence[int],
    *,
    now_ms: int,
    last: int,
    user_features: Mapping[str, Any] | None = None,
) -> EventContributions:
    """Return what each of the last events contributes to the scores of some items.

    Parameters
    ----------
    history
        One user's whole history in fold order.
    rows
        Rows of the items in the vocabulary, from 0.
    now_ms
        Time of the request, epoch milliseconds.
    last
        Consumed events looked at, the newest; takes a time that grows with its square.
    user_features
        As for `training.scoring.scorer.Scorer.scores`; they stay as they are.
    """
    types = scorer.model.vocabulary.type_index
    used = [n for n, event in enumerate(history) if event.type in types and event.items]
    looked, wanted, scorer = used[-last:], np.asarray(rows, np.int64), scorer.frozen()

    def scores(state: bytes | None) -> Doubles:
        return np.asarray(scorer.scores(state, now_ms, user_features), np.float64)[wanted]

    if not looked:
        return EventContributions([], np.zeros((0, len(wanted))), scores(None), None)
    before = [transition.replay([history[: looked[0]]])[0]]
    for n in looked:
        before.append(transition.step([before[-1]], [history[n]])[0])
    # What the model does not consume leaves a state as it is, so only consumed events follow.
    following = [[history[n] for n in looked[k + 1 :]] for k in range(len(looked))]
    without = transition.replay(following, before[:-1])
    whole = scores(before[-1])
    values = np.stack([whole - scores(state) for state in without])
    return EventContributions(looked, values, whole, before[-1])


@dataclass(frozen=True)
class MemoryContributions:
    """The memories' part of one item's score.

    Attributes
    ----------
    items
        Rows of the items in the history, from 0.
    values
        Part of each, shape (R,).
    popularity
        Part of what sells lately and just now, the same for all who have as many events.
    """

    items: npt.NDArray[np.int64]
    values: Doubles
    popularity: float


def memory_parts(
    scorer: Scorer,
    state: bytes | None,
    rows: Sequence[int],
    now_ms: int | None,
    user_features: Mapping[str, Any] | None = None,
) -> list[MemoryContributions]:
    """Return how the memories make up their part of some items' scores; empty without memories.

    Parameters
    ----------
    rows
        Rows of the items in the vocabulary, from 0.
    state, now_ms, user_features
        As for `training.scoring.scorer.Scorer.scores`.
    """
    model = scorer.model
    memory, mixing = model.memory, model.network.mixing
    query = scorer.ask(state, now_ms, user_features)
    if memory is None or mixing is None or state is None or query is None:
        return []
    found = LearnedStates(1, Layout.of(model))
    found.load([state])
    snapshot = found.tables.snapshot(np.zeros(1, np.int64))
    log_events = torch.from_numpy(statistics(snapshot.scalars)[:, 0])
    weight = mixing.at(log_events)[0, 1:].double().numpy()
    parts = query.parts(rows)
    explained = [
        _parts(memory, snapshot, weight, row, part) for row, part in zip(rows, parts.T, strict=True)
    ]
    if query.live is None:
        return explained
    return [
        replace(one, popularity=one.popularity + float(query.live[row]))
        for row, one in zip(rows, explained, strict=True)
    ]


def _parts(
    memory: Channels, snapshot: Rows, weight: Doubles, row: int, part_K: Doubles
) -> MemoryContributions:
    """Return one item's; ``part_K`` is what each expert adds to its probability."""
    items = snapshot.rows["item"].astype(np.int64) - 1
    left = fade_rows(snapshot.rows, snapshot.scalars[0], np.arange(READ)).T.astype(np.float64)
    entries = {row_type: _column(table, items, row) for row_type, table in memory.rows.items()}
    shares = part_K / part_K.sum()
    values = np.zeros(len(items))
    for m, channel in enumerate(CHANNELS):
        part = left[m] * entries[channel.rows]
        if channel.log:
            total = max(float(part.sum()), 0.0)
            part = part / total * np.log(total / EPSILON + 1.0) if total > 0 else part * 0.0
        values += shares[0] * weight[m] * part
    of_evidence = shares[2 : 2 + len(EVIDENCE)]
    for share, m in zip(of_evidence, EVIDENCE, strict=True):
        if share > 0:
            part = left[m] * entries[CHANNEL_AT[m].rows]
            values += _raise(of_evidence) * share * part / part.sum()
    popular = float(weight[len(CHANNELS) :] @ memory.popularity[:, row].astype(np.float64))
    of_popularity = shares[2 + len(EVIDENCE) :]
    popular = shares[0] * popular + _raise(of_popularity) * float(of_popularity.sum())
    return MemoryContributions(items, values, popular)


def _raise(shares: Doubles) -> float:
    """Return what some experts add to log p, ``−log(1 − Σ shares)``, per share of p."""
    total = min(float(shares.sum()), 1 - 1e-9)
    return -np.log1p(-total) / total if total > 0 else 0.0


def _column(table: Any, items: npt.NDArray[np.int64], row: int) -> Doubles:
    """Return each item's entry at ``row``, 0 where there is none."""
    out = np.zeros(len(items))
    for n, item in enumerate(items.tolist()):
        begin, end = table.indptr[item], table.indptr[item + 1]
        out[n] = table.value[begin:end][table.item[begin:end] == row].sum()
    return out
