"""The session in progress: what the user does now, bounded and reset when a new one starts.

Belongs here: session borders, the cart of the session, what was viewed in it and the
intent read from them. Not here: anything that outlives the session.

A session ends when an event names another ``session_id`` or, without one, after 30 minutes
without an event. An event older than the session's start that names another session is
counted nowhere here: that session is over.
"""

from typing import Final

import msgspec

from feature_repo.compact import MILLI, Key, pack_id
from feature_repo.events import SESSION_GAP_MS, EventRecord

MAX_CART: Final = 50
MAX_VIEWED: Final = 30
COMPARE_RUN: Final = 3
"""This many item views in a row within one category read as comparing."""

_MAX_QUANTITY_MILLI: Final = 10**12


class Session(msgspec.Struct, array_like=True):
    """The latest session.

    Attributes
    ----------
    number
        Sessions so far, this one included; 0 before the first.
    id
        ``session_id`` of the events, "" when the session was found by the gap.
    started_at, last_at
        Epoch seconds.
    cart
        Quantity in thousandths by item, oldest first, at most `MAX_CART` items.
    viewed
        Number of views by item, oldest first, the last `MAX_VIEWED` distinct items.
    run_category, run
        Category of the last item view and how many views in a row it has had.
    checkout, bought, searched
        Whether checkout was begun since the last order; whether an order was placed in this
        session; whether its last event was a search.
    """

    number: int = 0
    id: Key = ""
    started_at: int = 0
    last_at: int = 0
    events: int = 0
    cart: dict[Key, int] = {}
    viewed: dict[Key, int] = {}
    run_category: str = ""
    run: int = 0
    checkout: bool = False
    bought: bool = False
    searched: bool = False

    @property
    def intent(self) -> str | None:
        """Read the session: the first rule that holds.

        ``buy`` something in the cart or checkout begun; ``bought`` an order placed;
        ``search`` the last event was a search; ``compare`` an item viewed twice or
        `COMPARE_RUN` views in a row within a category; else ``browse``. None before any.
        """
        if self.events == 0:
            return None
        if self.cart or self.checkout:
            return "buy"
        if self.bought:
            return "bought"
        if self.searched:
            return "search"
        if self.run >= COMPARE_RUN or any(count > 1 for count in self.viewed.values()):
            return "compare"
        return "browse"


def advance(session: Session, event: EventRecord, at: int) -> Session:
    """Return the session after ``event`` at ``at`` (epoch seconds): the same one, or a new one."""
    name = "" if event.session_id is None else pack_id(event.session_id)
    if session.number == 0 or _is_other(session, name, at):
        if session.number and name != "" and at < session.started_at:
            return session
        session = Session(session.number + 1, name, at, at)
    session.last_at = max(session.last_at, at)
    session.events += 1
    session.searched = event.type == "search"
    change = _CHANGES.get(event.type)
    if change is not None:
        change(session, event)
    return session


def _is_other(session: Session, name: Key, at: int) -> bool:
    if name != "":
        return name != session.id
    return at - session.last_at > SESSION_GAP_MS // 1000


def _view(session: Session, event: EventRecord) -> None:
    for item in event.items:
        key = pack_id(item.item_id)
        session.viewed[key] = session.viewed.pop(key, 0) + 1
        category = item.category or ""
        if category and category == session.run_category:
            session.run += 1
        else:
            session.run_category, session.run = category, 1
    _drop_oldest(session.viewed, MAX_VIEWED)


def _add(session: Session, event: EventRecord) -> None:
    for item in event.items:
        key = pack_id(item.item_id)
        quantity = session.cart.get(key, 0) + max(1, round(item.quantity * MILLI))
        session.cart[key] = min(_MAX_QUANTITY_MILLI, quantity)
    _drop_oldest(session.cart, MAX_CART)


def _remove(session: Session, event: EventRecord) -> None:
    for item in event.items:
        key = pack_id(item.item_id)
        left = session.cart.get(key, 0) - max(1, round(item.quantity * MILLI))
        if left > 0:
            session.cart[key] = left
        else:
            session.cart.pop(key, None)


def _checkout(session: Session, event: EventRecord) -> None:
    session.checkout = True


def _buy(session: Session, event: EventRecord) -> None:
    if session.cart:
        for item in event.items:
            session.cart.pop(pack_id(item.item_id), None)
    session.checkout, session.bought = False, True


def _drop_oldest(table: dict[Key, int], capacity: int) -> None:
    while len(table) > capacity:
        del table[next(iter(table))]


_CHANGES: Final = {
    "view_item": _view,
    "select_item": _view,
    "add_to_cart": _add,
    "remove_from_cart": _remove,
    "begin_checkout": _checkout,
    "add_payment_info": _checkout,
    "purchase": _buy,
}
