"""Adaptation to a change of interest, where the truth is known; what a step costs.

The planted shop: each user has one interest, a category; an event is an item of it with
probability `LOYAL`, else any item; after each event the interest changes to another category with
probability `CHANGE`. A profile's answer is its category of the largest share.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.events.types import CONSUMED
from training.evaluation.baselines import EvaluationWindow
from training.history.sequences import Ints
from training.history.user_features import UserFeatures
from training.history.vocabulary import DAY_MS
from training.lab.comparison.datasets import by_time
from training.lab.comparison.protocol import CHUNK
from training.lab.comparison.shop import Shop
from training.lab.studies.study import Study
from training.lab.studies.update_strategies import (
    Clusters,
    LearnedStrategy,
    RuleStrategy,
    Way,
    Ways,
)
from training.network.model_dir import Model
from training.scoring.transition import LearnedTransition

USERS: Final = 600
EVENTS: Final = 80
CATEGORIES: Final = 20
ITEMS: Final = 20
LOYAL: Final = 0.7
CHANGE: Final = 1 / 25
CURVE: Final = 15
_START_MS: Final = 18_000 * DAY_MS
_DAYS: Final = 160.0
_STEPS: Final = 2000


def plant(seed: int) -> tuple[Shop, Mapping[str, Ints]]:
    """Return the shop, and each user's interest after each of their events."""
    generator = np.random.default_rng(seed)
    histories, truth = [], {}
    for n in range(USERS):
        user = f"u{n:04d}"
        change = generator.random(EVENTS) < CHANGE
        change[0] = True
        drawn = generator.integers(CATEGORIES, size=EVENTS)
        interest = drawn[np.maximum.accumulate(np.where(change, np.arange(EVENTS), 0))]
        loyal = generator.random(EVENTS) < LOYAL
        category = np.where(loyal, interest, generator.integers(CATEGORIES, size=EVENTS))
        item = category * ITEMS + generator.integers(ITEMS, size=EVENTS)
        times = _START_MS + (np.sort(generator.random(EVENTS)) * _DAYS * DAY_MS).astype(np.int64)
        histories.append(
            (user, [_event(user, k, *e) for k, e in enumerate(zip(times, item, strict=True))])
        )
        truth[user] = interest
    return Shop("planted", histories, by_time(histories, train=0.5, choose=0.6), support=1), truth


def _event(user: str, number: int, time_ms: int, item: int) -> EventRecord:
    line = ItemRecord(item_id=f"i{item:03d}", quantity=1.0, category=f"c{item // ITEMS:02d}")
    return EventRecord(
        id=f"{user}-{number}", type="purchase", user=user, time_ms=int(time_ms),
        received_ms=int(time_ms), items=[line],
    )  # fmt: skip


def adaptation(study: Study) -> dict[str, dict[str, Any]]:
    """Fit the three ways to the planted shop and see how they follow.

    Returns
    -------
    dict
        By way: ``right`` (share of test events after which the answer is the interest),
        ``events_until_followed`` (median over changes in the test period; a change that is
        never followed counts as its length), ``followed`` (share of changes) and ``curve``
        (share right after 1, 2, … events of a new interest).
    """
    shop, truth = plant(study.seeds[0])
    study = replace(study, shop=shop)
    ways, _ = Ways(
        shop, study.fit(study.seeds[0], study.at(2, 4, "fit to a shop with planted changes"))
    ).tune()
    interest = np.concatenate([truth[user] for user in shop.histories.users])
    # Asked right before the event that follows; so each user's last event stays out.
    event = np.flatnonzero(shop.histories.time_ms >= shop.split.cut_off_ms)
    event = event[event > shop.histories.starts[shop.owner[event]]]
    requests = EvaluationWindow(event, shop.owner[event])
    return {name: _follow(shop, way, requests, interest) for name, way in ways.items()}


def _follow(shop: Shop, way: Way, requests: EvaluationWindow, interest: Ints) -> dict[str, Any]:
    names = np.array([int(name[1:]) for name in shop.vocabulary.categories])
    top = np.concatenate(
        [
            way.categories(
                shop,
                EvaluationWindow(requests.event[b : b + CHUNK], requests.user[b : b + CHUNK]),
            ).argmax(axis=1)
            for b in range(0, len(requests.event), CHUNK)
        ]
    )  # fmt: skip
    last = requests.event - 1
    right = names[top] == interest[last]
    first = shop.histories.starts[requests.user]
    changed = np.append(True, (np.diff(interest) != 0)) | np.isin(
        np.arange(len(interest)), shop.histories.starts[:-1]
    )
    since = np.arange(len(interest)) - np.maximum.accumulate(
        np.where(changed, np.arange(len(interest)), 0)
    )
    number = since[last]
    until, followed = list[int](), 0
    for at in np.flatnonzero((number == 0) & (last > first)):
        length = 1
        while (
            at + length < len(last)
            and requests.user[at + length] == requests.user[at]
            and number[at + length] == length
        ):
            length += 1
        hits = np.flatnonzero(right[at : at + length])
        followed += len(hits) > 0
        until.append(int(hits[0]) + 1 if len(hits) else length)
    fresh = last - since[last] > first  # the first interest is no change
    return {
        "right": float(right.mean()),
        "events_until_followed": float(np.median(until)),
        "followed": followed / max(len(until), 1),
        "curve": [float(right[fresh & (number == k)].mean()) for k in range(CURVE)],
    }


def step_costs(shop: Shop, ways: Mapping[str, Way]) -> dict[str, float]:
    """Return microseconds in which one event moves one profile, on one core, by way.

    Rules and clusters hold a vector of category counts and one of item counts; the learned
    state goes from bytes to bytes, as in service.
    """
    rules, clusters, learned = (ways[name] for name in ("rules", "clusters", "learned"))
    assert isinstance(rules, RuleStrategy)
    assert isinstance(clusters, Clusters)
    assert isinstance(learned, LearnedStrategy)
    histories = shop.histories
    user = int(np.argmax(histories.lengths()))
    events = np.arange(histories.starts[user], histories.starts[user + 1])[:_STEPS]
    lines = [histories.item[histories.lines[e] : histories.lines[e + 1]] - 1 for e in events]
    lines = [item[item >= 0] for item in lines]
    category = shop.vocabulary.item_category - 1
    counts = np.zeros(shop.items, np.float32)
    profile = np.zeros(len(shop.vocabulary.categories), np.float32)

    def count(n: int) -> None:
        item = lines[n]
        counts.__imul__(rules.per_event)
        profile.__imul__(rules.per_event)
        counts[item] += 1.0
        np.add.at(profile, category[item], 1.0)

    def cluster(n: int) -> None:
        count(n)
        total = profile / max(float(profile.sum()), 1e-9)
        clusters.nearest(total[None, :])

    network = learned.answers.network
    model = Model(
        "compared", network.config, shop.vocabulary, UserFeatures.none(), network, {},
        learned.answers.memory,
    )  # fmt: skip
    transition = LearnedTransition(model)
    records = [
        EventRecord(
            id=str(e), type=CONSUMED[histories.kind[e]], user="u",
            time_ms=int(histories.time_ms[e]), received_ms=int(histories.time_ms[e]),
            items=[ItemRecord(item_id=shop.vocabulary.items[i]) for i in item],
        )
        for e, item in zip(events, lines, strict=True)
    ]  # fmt: skip
    state: list[bytes | None] = [None]

    def learn(n: int) -> None:
        state[:] = transition.step(state, [records[n]])

    return {
        "rules": _time_step(count, len(events)),
        "clusters": _time_step(cluster, len(events)),
        "learned": _time_step(learn, len(events)),
    }


def _time_step(step: Callable[[int], None], count: int) -> float:
    """Return microseconds of one call of ``step(n)``, the least of three rounds."""
    rounds = list[float]()
    for _ in range(3):
        began = time.perf_counter()
        for n in range(count):
            step(n)
        rounds.append((time.perf_counter() - began) / count * 1e6)
    return min(rounds)
