"""Synthetic shops with a known answer."""

import random
from collections.abc import Callable

from feature_repo.events.schema import EventRecord, ItemRecord

DAY_MS = 86_400_000
START_MS = 1_600_000_000_000
Shop = list[tuple[str, list[EventRecord]]]


def event(
    user: str, number: int, time_ms: int, items: list[str], kind: str = "purchase"
) -> EventRecord:
    lines = [ItemRecord(item_id=i, quantity=1.0, price=2.0, category=f"C/{i[-1]}") for i in items]
    return EventRecord(
        id=f"{user}-{number}", type=kind, user=user, time_ms=time_ms, received_ms=time_ms,
        items=lines, order_id=str(number),
    )  # fmt: skip


def shop(
    basket: Callable[[random.Random, int, int], list[str]],
    *,
    users: int = 60,
    events: int = 40,
    seed: int = 0,
) -> Shop:
    """``basket(random, user, number)`` gives the items; one event about every two days."""
    made: Shop = []
    for user in range(users):
        draw = random.Random(f"{seed}-{user}")
        name = f"u{user:03d}"
        times = [START_MS + k * 2 * DAY_MS + draw.randrange(DAY_MS) for k in range(events)]
        made.append((name, [event(name, k, t, basket(draw, user, k)) for k, t in enumerate(times)]))
    return made


def cyclic(draw: random.Random, user: int, number: int) -> list[str]:
    """The next item is always the one after: 12 items in a ring."""
    return [f"i{(user + number) % 12:02d}"]


def uniform(draw: random.Random, user: int, number: int) -> list[str]:
    """Nothing to learn: every item alike, whoever asks."""
    return [f"i{draw.randrange(12):02d}"]


def habits(draw: random.Random, user: int, number: int) -> list[str]:
    """Baskets of a user's own favourites, with some noise."""
    own = [f"i{(user * 7 + k) % 40:02d}" for k in range(4)]
    return sorted({*draw.sample(own, 2), f"i{draw.randrange(40):02d}"})


def end_ms(events: int = 40) -> int:
    return START_MS + events * 2 * DAY_MS
