"""Which purchases tell of an order again, the slow way: from what the profile's page says."""

from collections.abc import Sequence
from dataclasses import dataclass

from feature_repo.events.schema import EventRecord


@dataclass
class Told:
    """A purchase: whether it begins an order, and the event whose place it takes.

    An event that states no amount takes its own place: it changes nothing. ``first`` began the
    order.
    """

    event: EventRecord
    is_new: bool
    instead_of: EventRecord | None
    first: EventRecord


def told(history: Sequence[EventRecord]) -> list[Told]:
    """Return what each purchase of one user's events tells."""
    purchases = [e for e in history if e.type == "purchase"]
    found, orders = list[Told](), list[list[EventRecord]]()
    for n, e in enumerate(purchases):
        same = [m for m in range(n) if purchases[m].order_id == e.order_id]
        again = bool(same) and n - same[-1] <= 32 and abs(day(e) - day(purchases[same[-1]])) <= 91
        orders.append(orders[same[-1]] if again else [])
        split = any(len(part.items) == 200 for part in [*orders[n], e])
        is_silent = e.value is None and all(item.price is None for item in e.items)
        instead_of = orders[n][-1] if again and not split else None
        if instead_of and is_silent:
            instead_of = e
        else:
            orders[n].append(e)
        found.append(Told(e, not again, instead_of, orders[n][0]))
    return found


def day(event: EventRecord) -> int:
    return event.time_ms // 86_400_000
