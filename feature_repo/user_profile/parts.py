"""The parts of the explicit profile's state: their fields, and how each is read.

Belongs here: the classes whose fields become bytes. They stand apart from what events do to
them (`id_ring`, `interests`, `recent`, `session`, `order_days`, `orders`), because those
modules are compiled and msgspec needs classes that are not. Not here: the profile as a whole
(`state`).
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from feature_repo.user_profile.compact import Key, pack_id
from feature_repo.user_profile.id_ring import Stored, ids, keys
from feature_repo.user_profile.interest_entry import SIZES, Interest, unpack
from feature_repo.user_profile.names import unpack_name
from feature_repo.user_profile.orders import GAP

COMPARE_RUN: Final = 3
"""This many item views in a row within one category read as comparing."""


class Ids(msgspec.Struct, array_like=True, gc=False):
    """A row of ids, oldest first; see `id_ring`.

    Attributes
    ----------
    width
        Bytes of a slot; 0 while no number has come.
    slots
        One slot an id, if ``width`` is not 0.
    names
        The ids that are no number of ``width`` bytes, each between two `id_ring.END`.
    """

    width: int = 0
    slots: bytes = b""
    names: bytes = b""


class Table(Ids):
    """Entries by key, in order of first touch; read it as a mapping. See `interests`.

    Attributes
    ----------
    layouts
        One byte an entry: the layout of its record, and whether the current order has it.
    ranks
        Two bytes an entry: the day on which its long weight was or will be 1. All weights
        decay alike, so this ranks them at any moment.
    records
        The entries' bytes, one after another.
    floor
        No entry but the newest has a rank below it.
    """

    layouts: bytes = b""
    ranks: bytes = b""
    records: bytes = b""
    floor: int = 0

    def entries(self) -> dict[Key, Interest]:
        """Return all entries, first touched first."""
        found, offset = dict[Key, Interest](), 0
        for key, layout in zip(keys(self), self.layouts, strict=True):
            found[self.unpack_key(key)] = Interest(*unpack(layout, self.records, offset))
            offset += SIZES[layout]
        return found

    def __getitem__(self, key: Key) -> Interest:
        return self.entries()[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.entries())

    def __contains__(self, key: Key) -> bool:
        return key in self.entries()

    def __len__(self) -> int:
        return len(self.layouts)

    @staticmethod
    def unpack_key(key: Stored) -> Key:
        """Return the key outside of the table."""
        raise NotImplementedError


class Items(Table):
    """Interests by item id, a number where it is one."""

    @staticmethod
    def unpack_key(key: Stored) -> Key:
        """Return the item id as `compact.pack_id` gives it."""
        return key if isinstance(key, int) else pack_id(key[1:-1].decode())


class Names(Table):
    """Interests by category or brand."""

    @staticmethod
    def unpack_key(key: Stored) -> Key:
        """Return the name."""
        assert isinstance(key, bytes)
        return unpack_name(key)


class Recent(Ids):
    """The last `recent.MAX_RECENT` items, oldest first, as ids.

    Attributes
    ----------
    groups
        An event's type number, number of items and epoch seconds, one event after another.
    customs
        Names of the types without a number, each behind an `id_ring.END`, oldest first.
    """

    groups: bytes = b""
    customs: bytes = b""


Intent = Literal["buy", "bought", "search", "compare", "browse"]


class Session(Ids):
    """The latest session; as ids, the last `session.MAX_VIEWED` distinct items viewed in it.

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

    def following(self, name: Key, at: int) -> "Session":
        """Return the session that begins at ``at`` (epoch seconds), where this one is over."""
        return Session(number=self.number + 1, name=name, started_at=at, last_at=at)

    @property
    def cart(self) -> dict[Key, int]:
        """Quantity in thousandths by item, oldest first, at most `session.MAX_CART` items."""
        return _cart_decoder.decode(self.basket) if self.basket else {}

    @cart.setter
    def cart(self, cart: dict[Key, int]) -> None:
        self.basket = _cart_encoder.encode(cart) if cart else b""

    @property
    def viewed(self) -> dict[Key, int]:
        """Number of views by item, last viewed last, at most `session.MAX_VIEWED` items."""
        return dict(zip(map(pack_id, ids(self)), self.views, strict=True))

    @property
    def intent(self) -> Intent | None:
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


class Days(msgspec.Struct, array_like=True):
    """Days with an order or refund, within `order_days.MAX_DAYS` of the newest.

    Attributes
    ----------
    last_day, day_orders, day_spend
        The newest day, with its orders and money (thousandths); all 0 before the first.
    span
        Days from the oldest to the newest.
    packed
        The older days, oldest first, each as varints: days to the next one, doubled, plus 1
        unless it had exactly one order; then the number of orders; the money, its sign last.
    """

    last_day: int = 0
    day_orders: int = 0
    day_spend: int = 0
    span: int = 0
    packed: bytes = b""


class Orders(Days):
    """What was bought; as days, the orders and the money of the last `order_days.MAX_DAYS` days.

    Attributes
    ----------
    count, refunds
        Orders (an event that repeats an ``order_id`` of `recent` tells of that order again);
        refund events.
    lines
        Order lines of all orders.
    last_id
        Of older rows, whose `recent` is empty: the last order (`compact.pack_id`).
    first_at, last_at
        Epoch seconds of the first and the last order.
    spend
        Lifetime money, thousandths.
    gaps
        The ``gaps_s``, four bytes each.
    history
        Distinct items, first purchase first; beyond `orders.MAX_HISTORY` the oldest go.
    paid_lines, price_sum, promoted_lines, gross, discount
        Decayed with a half-life of 112 days, as of ``last_at``: lines with a price
        (millionths) and the sum of their unit prices (thousandths); lines with a discount or
        coupon (millionths); money before discounts and discounts (thousandths).
    recent
        The last purchase events, for orders that are told again; see `order_memory`.
    """

    count: int = 0
    refunds: int = 0
    lines: int = 0
    last_id: Key = ""
    first_at: int = 0
    last_at: int = 0
    spend: int = 0
    gaps: bytes = b""
    history: Ids = msgspec.field(default_factory=Ids)
    paid_lines: int = 0
    price_sum: int = 0
    promoted_lines: int = 0
    gross: int = 0
    discount: int = 0
    recent: bytes = b""

    @property
    def gaps_s(self) -> list[int]:
        """Seconds between the last `orders.MAX_GAPS` + 1 orders, oldest first."""
        return [gap for (gap,) in GAP.iter_unpack(self.gaps)]
