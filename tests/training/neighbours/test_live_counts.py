"""Live counts of a history are what the service keeps after the same events."""

import random
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.events.schema import EventRecord
from feature_repo.events.types import CONSUMED, POPULARITY_LEVELS
from services.catalogue import popularity
from tests.training.shops import DAY_MS, START_MS, Shop, event
from training.history.sequences import encode
from training.history.vocabulary import build_vocabulary
from training.neighbours.live_counts import COUNT_HALF_LIVES_DAYS, LiveCounts

USERS, ITEMS, DAYS = 6, 5, 90


def made(seed: int) -> Shop:
    draw, kinds = random.Random(seed), [*POPULARITY_LEVELS, "add_to_wishlist"]
    histories: Shop = []
    for user in range(USERS):
        times = sorted(START_MS + draw.randrange(DAYS * DAY_MS) for _ in range(25))
        events = list[EventRecord]()
        for n, time_ms in enumerate(times):
            items = [f"i{k}" for k in draw.sample(range(ITEMS), draw.randint(1, 3))]
            events.append(event(f"u{user}", n, time_ms, items, draw.choice(kinds)))
        histories.append((f"u{user}", events))
    return histories


def by_the_service(histories: Shop, before_ms: int) -> dict[str, dict[str, float]]:
    """Score items as the updaters do, an event at a time."""
    days: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    scores: dict[str, dict[str, float]] = {k: defaultdict(float) for k in popularity.SETS}
    for one in sorted((e for _, h in histories for e in h), key=lambda e: e.time_ms):
        level = POPULARITY_LEVELS.get(one.type)
        if level is None or one.time_ms >= before_ms:
            continue
        day = one.time_ms // DAY_MS
        for item in one.items:
            had = days[one.user, item.item_id]
            for key, gain in popularity.gains((had[0], had[1], had[2]), level, day):
                scores[key][item.item_id] += gain
            had[: level + 1] = [max(day, before) for before in had[: level + 1]]
    return scores


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, DAYS * DAY_MS), min_size=1, max_size=4))
def test_they_are_the_services_at_any_moment(seed: int, after_ms: list[int]) -> None:
    histories = made(seed)
    vocabulary = build_vocabulary(histories, until_ms=2**53, support=1)
    moments = START_MS + np.array(after_ms)
    counts = LiveCounts.of(encode(histories, vocabulary), len(vocabulary.items))
    for moment, found in zip(moments.tolist(), counts.at(moments), strict=True):
        kept = by_the_service(histories, moment)
        for row, key in zip(found, (popularity.KEY, popularity.TREND_KEY), strict=True):
            wanted = np.array([kept[key].get(item, 0.0) for item in vocabulary.items])
            if wanted.any():
                np.testing.assert_allclose(row / row.sum(), wanted / wanted.sum(), atol=1e-9)
            else:
                assert not row.any()


def test_half_lives_stand_in_the_order_of_the_stored_sets() -> None:
    stored = [popularity.SETS[key] for key in (popularity.KEY, popularity.TREND_KEY)]
    assert [days * DAY_MS for days in COUNT_HALF_LIVES_DAYS] == stored
    assert set(POPULARITY_LEVELS) <= set(CONSUMED)


def test_users_fade_by_their_half_life() -> None:
    histories: Shop = [(u, [event(u, 0, START_MS, ["A"])]) for u in ("u1", "u2")]
    vocabulary = build_vocabulary(histories, until_ms=2**53, support=1)
    counts = LiveCounts.of(encode(histories, vocabulary), 1)
    np.testing.assert_allclose(
        counts.users_at(START_MS + DAY_MS), 2 * 0.5 ** (1 / np.array([28, 7]))
    )
    np.testing.assert_allclose(counts.users_at(START_MS + 28 * DAY_MS), [1.0, 2 * 0.5**4])
