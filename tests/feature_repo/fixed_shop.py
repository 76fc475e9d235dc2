"""One fixed log of three users over 120 days."""

from feature_repo.events.schema import EventRecord, ItemRecord
from tests.feature_repo.shop_log import BRANDS, CATEGORIES, DAY_MS, START_MS, USERS


def _event(number: int) -> EventRecord:
    kind = ("purchase", "view_item", "purchase", "purchase", "add_to_cart")[number % 5]
    time_ms = START_MS + number * 2 * DAY_MS + (number % 20) * 3_600_000
    return EventRecord(
        id=f"f{number:03d}",
        type=kind,
        user=USERS[number % 3],
        time_ms=time_ms,
        received_ms=time_ms,
        items=[
            ItemRecord(
                f"i{n % 6}", quantity=1 + n % 2, price=2.5 * (1 + n % 3),
                category=CATEGORIES[n % 4], brand=BRANDS[n % 3], discount=0.5 if n % 2 else None,
            )
            for n in range(number, number + 1 + number % 3)
        ],
        order_id=f"o{number}" if kind == "purchase" else None,
    )  # fmt: skip


LOG = [_event(number) for number in range(60)]
