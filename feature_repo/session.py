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
from feature_repo.id_ring import Ids, append, delete, drop, ids, index, stored
from feature_repo.names import pack_name

MAX_CART: Final = 50
MAX_VIEWED: Final = 30
COMPARE_RUN: Final = 3
"""This many item views in a row within one category read as comparing."""

_MAX_QUANTITY_MILLI: Final = 10**12
_MAX_VIEWS: Final = 255


class Session(Ids):
    """The latest session; as ids, the last `MAX_VIEWED` distinct items viewed in it.

    Attributes
    ----------
    number
        Sessions so far, this one included; 0 before the first.
    name
        ``session_id`` of the events, "" when the session was found by the gap.
    started_at, last_at
        Epoch seconds.
    views
        Number of views by item viewed, one byte each, last viewed last.
    basket
        The ``cart``, packed.
    run_category, run
        Packed category of the last item view and how many views in a row it has had.
    checkout, bought, searched
        Whether checkout was begun since the last order; whether an order was placed in this
        session; whether its last event was a search.
    """

    number: int = 0
    name: Key = ""
    started_at: int = 0
    last_at: int = 0
    events: int = 0
    views: bytes = b""
    basket: bytes = b""
    run_category: bytes = b""
    run: int = 0
    checkout: bool = False
    bought: bool = False
    searched: bool = False

    @property
    def cart(self) -> dict[Key, int]:
        """Quantity in thousandths by item, oldest first, at most `MAX_CART` items."""
        return _cart_decoder.decode(self.basket) if self.basket else {}

    @property
    def viewed(self) -> dict[Key, int]:
        """Number of views by item, last viewed last, at most `MAX_VIEWED` items."""
        return dict(zip(map(pack_id, ids(self)), self.views, strict=True))

    @property
    def intent(self) -> str | None:
        """Read the session: the first rule that holds.

        ``buy`` something in the cart or checkout begun; ``bought`` an order placed;
        ``search`` the last event was a search; ``compare`` an item viewed twice or
        `COMPARE_RUN` views in a row within a category; else ``browse``. None before any.
        """
        if self.events == 0:
            return None
        if self.basket or self.checkout:
            return "buy"
        if self.bought:
            return "bought"
        if self.searched:
            return "search"
        if self.run >= COMPARE_RUN or max(self.views, default=0) > 1:
            return "compare"
        return "browse"


_cart_decoder: Final = msgspec.msgpack.Decoder(dict[Key, int])
_cart_encoder: Final = msgspec.msgpack.Encoder()


def advance(session: Session, event: EventRecord, at: int) -> Session:
    """Return the session after ``event`` at ``at`` (epoch seconds): the same one, or a new one."""
    name = "" if event.session_id is None else pack_id(event.session_id)
    if session.number == 0 or _is_other(session, name, at):
        if session.number and name != "" and at < session.started_at:
            return session
        session = Session(number=session.number + 1, name=name, started_at=at, last_at=at)
    session.last_at = max(session.last_at, at)
    session.events += 1
    session.searched = event.type == "search"
    change = _CHANGES.get(event.type)
    if change is not None:
        change(session, event)
    return session


def _is_other(session: Session, name: Key, at: int) -> bool:
    if name != "":
        return name != session.name
    return at - session.last_at > SESSION_GAP_MS // 1000


def _view(session: Session, event: EventRecord) -> None:
    for item in event.items:
        key = stored(item.item_id)
        nth, seen = index(session, key), 0
        if nth >= 0:
            delete(session, nth)
            seen = session.views[nth]
            session.views = session.views[:nth] + session.views[nth + 1 :]
        append(session, key)
        session.views += bytes((min(_MAX_VIEWS, seen + 1),))
        category = pack_name(item.category) if item.category else b""
        if category and category == session.run_category:
            session.run += 1
        else:
            session.run_category, session.run = category, 1
    surplus = len(session.views) - MAX_VIEWED
    if surplus > 0:
        drop(session, surplus)
        session.views = session.views[surplus:]


def _add(session: Session, event: EventRecord) -> None:
    cart = session.cart
    for item in event.items:
        key = pack_id(item.item_id)
        quantity = cart.get(key, 0) + max(1, round(item.quantity * MILLI))
        cart[key] = min(_MAX_QUANTITY_MILLI, quantity)
    while len(cart) > MAX_CART:
        del cart[next(iter(cart))]
    _set_cart(session, cart)


def _remove(session: Session, event: EventRecord) -> None:
    cart = session.cart
    for item in event.items:
        key = pack_id(item.item_id)
        left = cart.get(key, 0) - max(1, round(item.quantity * MILLI))
        if left > 0:
            cart[key] = left
        else:
            cart.pop(key, None)
    _set_cart(session, cart)


def _checkout(session: Session, event: EventRecord) -> None:
    session.checkout = True


def _buy(session: Session, event: EventRecord) -> None:
    if session.basket:
        cart = session.cart
        for item in event.items:
            cart.pop(pack_id(item.item_id), None)
        _set_cart(session, cart)
    session.checkout, session.bought = False, True


def _set_cart(session: Session, cart: dict[Key, int]) -> None:
    session.basket = _cart_encoder.encode(cart) if cart else b""


_CHANGES: Final = {
    "view_item": _view,
    "select_item": _view,
    "add_to_cart": _add,
    "remove_from_cart": _remove,
    "begin_checkout": _checkout,
    "add_payment_info": _checkout,
    "purchase": _buy,
}
