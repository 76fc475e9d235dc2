"""The session in progress: what the user does now, bounded and reset when a new one starts.

Belongs here: session borders, the cart of the session, what was viewed in it and the
intent read from them. Not here: anything that outlives the session.

A session ends when an event names another ``session_id`` or, without one, after 30 minutes
without an event. An event older than the session's start that names another session is
counted nowhere here: that session is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from feature_repo.events.schema import SESSION_GAP_MS, EventRecord
from feature_repo.events.types import TYPES
from feature_repo.user_profile.compact import MILLI, Key, pack_id
from feature_repo.user_profile.id_ring import Row, append, delete, drop, index, pack_key
from feature_repo.user_profile.names import pack_name

if TYPE_CHECKING:
    from feature_repo.user_profile.parts import Session

MAX_CART: Final = 50
MAX_VIEWED: Final = 30

_VIEW_TYPES: Final = frozenset(name for name, each in TYPES.items() if each.evidence == "view")
_MAX_QUANTITY_MILLI: Final = 10**12
_MAX_VIEWS: Final = 255


def advance(session: Session, event: EventRecord, at: int) -> Session:
    """Return the session after ``event`` at ``at`` (epoch seconds): the same one, or a new one."""
    name = "" if event.session_id is None else pack_id(event.session_id)
    if session.number == 0 or _is_other(session, name, at):
        if session.number and name != "" and at < session.started_at:
            return session
        session = session.following(name, at)
    if at > session.last_at:
        session.last_at = at
    session.events += 1
    event_type = event.type
    session.searched = event_type == "search"
    if event_type in _VIEW_TYPES:
        _view(session, event)
    elif event_type == "add_to_cart":
        _add(session, event)
    elif event_type == "remove_from_cart":
        _remove(session, event)
    elif event_type in ("begin_checkout", "add_payment_info"):
        session.checkout = True
    elif event_type == "purchase":
        _buy(session, event)
    return session


def _is_other(session: Session, name: Key, at: int) -> bool:
    if name != "":
        return name != session.name
    return at - session.last_at > SESSION_GAP_MS // 1000


def _view(session: Session, event: EventRecord) -> None:
    row, views = Row(session), session.views
    for item in event.items:
        key = pack_key(item.item_id)
        nth, seen = index(row, key), 0
        if nth >= 0:
            delete(row, nth)
            seen = views[nth]
            views = views[:nth] + views[nth + 1 :]
        append(row, key)
        views += min(_MAX_VIEWS, seen + 1).to_bytes(1, "little")
        category = pack_name(item.category) if item.category else b""
        if category and category == session.run_category:
            session.run += 1
        else:
            session.run_category, session.run = category, 1
    surplus = len(views) - MAX_VIEWED
    if surplus > 0:
        drop(row, surplus)
        views = views[surplus:]
    row.keep(session)
    session.views = views


def _add(session: Session, event: EventRecord) -> None:
    cart = session.cart
    for item in event.items:
        key = pack_id(item.item_id)
        quantity = cart.get(key, 0) + max(1, round(item.quantity * MILLI))
        cart[key] = min(_MAX_QUANTITY_MILLI, quantity)
    while len(cart) > MAX_CART:
        del cart[next(iter(cart))]
    session.cart = cart


def _remove(session: Session, event: EventRecord) -> None:
    cart = session.cart
    for item in event.items:
        key = pack_id(item.item_id)
        left = cart.get(key, 0) - max(1, round(item.quantity * MILLI))
        if left > 0:
            cart[key] = left
        else:
            cart.pop(key, None)
    session.cart = cart


def _buy(session: Session, event: EventRecord) -> None:
    if session.basket:
        cart = session.cart
        for item in event.items:
            cart.pop(pack_id(item.item_id), None)
        session.cart = cart
    session.checkout, session.bought = False, True
