"""The load of the bench and the soak: users, items and events, the same from every seed.

Belongs here: what is sent. Not here: how it is sent (`http`) or what is measured.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import Event, EventRecord, to_record

MAX_ITEMS: Final = 3000
_EVENT_TYPES: Final = ("view_item", "select_item", "add_to_cart", "purchase", "search")
_SHARES: Final = (0.70, 0.08, 0.10, 0.07, 0.05)
_MOST_LINES: Final = 4


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """An item of the load, with what a shop sends along."""

    item_id: str
    category: str
    brand: str
    price: float

    def line(self) -> dict[str, Any]:
        """Return the item as it stands in an event."""
        return {
            "item_id": self.item_id, "category": self.category, "brand": self.brand,
            "price": self.price,
        }  # fmt: skip


def offers(items: Sequence[str], categories: Sequence[str] = ()) -> list[OfferedLoad]:
    """Return at most `MAX_ITEMS` offers.

    Parameters
    ----------
    items
        Item ids, e.g. those that a model knows; the first are taken.
    categories
        Category of each; absent: thirty made-up ones.
    """
    draw = random.Random("offers")  # noqa: S311 - a load, not a secret
    return [
        OfferedLoad(
            item,
            categories[n] if categories and categories[n] else f"Room {n % 6}/Shelf {n % 30}",
            f"Brand {n % 40}",
            draw.randrange(50, 5000) / 100,
        )
        for n, item in enumerate(items[:MAX_ITEMS])
    ]


class Load:
    """Events of a shop: mostly views, some carts, orders of up to four items, some searches.

    Parameters
    ----------
    offered
        What is looked at and bought.
    users
        Number of users; each event is of one drawn evenly.
    seed
        Same seed, same events; also part of every event's id.

    Attributes
    ----------
    offered
        As given.
    """

    def __init__(self, offered: Sequence[OfferedLoad], *, users: int, seed: str) -> None:
        self.offered = offered
        self._users = users
        self._seed = seed

    def user(self, number: int) -> str:
        """Return the id of a user."""
        return f"shopper-{number % self._users}"

    def event(self, number: int, user_id: str | None = None) -> dict[str, Any]:
        """Return the event of this number in the API's form, without a time.

        Parameters
        ----------
        user_id
            Whose event it is; absent: drawn.
        """
        draw = random.Random(f"{self._seed}-{number}")  # noqa: S311 - a load, not a secret
        event_type = draw.choices(_EVENT_TYPES, _SHARES)[0]
        body: dict[str, Any] = {
            "type": event_type,
            "id": f"{self._seed}-{number}",
            "user_id": user_id or self.user(draw.randrange(self._users)),
            "session_id": f"s{number // 1000}",
            "channel": "web",
        }
        if event_type == "search":
            return body | {"query": f"word {draw.randrange(500)}"}
        lines = draw.randint(1, _MOST_LINES) if event_type == "purchase" else 1
        body["items"] = [offer.line() for offer in draw.sample(self.offered, lines)]
        if event_type == "purchase":
            body["order_id"] = f"o{number}"
            body["currency"] = "EUR"
            body["value"] = round(sum(line["price"] for line in body["items"]), 2)
        return body

    def batch(self, number: int, size: int) -> list[dict[str, Any]]:
        """Return ``size`` events: those of the numbers from ``number · size`` on."""
        return [self.event(number * size + index) for index in range(size)]


def body_of(events: Sequence[dict[str, Any]]) -> bytes:
    """Return the request body of a batch."""
    return orjson.dumps(events)


def records_of(
    events: Sequence[dict[str, Any]], pseudonyms: Pseudonyms, received_ms: int
) -> list[EventRecord]:
    """Return the events as the log keeps them."""
    return [to_record(Event.model_validate(event), pseudonyms, received_ms) for event in events]
