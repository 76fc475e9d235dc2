"""Interests: bounded tables of the items, categories and brands a user touches most.

Belongs here: how much each event type counts, how a weight decays, which entries stay.
Not here: what else an event changes (see `explicit`), or interest scores over windows.

Each entry carries two weights, never blended: *long* with a half-life of 112 days and
*short* with one of 7 days,

    w(t) = Σ_i a_i · 2^(−(t − t_i) / H),

kept as one number as of the last touch. A late event adds ``a · 2^(−(last − t)/H)``, so
the order of arrival does not matter to the sum. Weights count millionths; each touch
rounds once (error ≤ 5e-7, decaying as the weight does).
"""

import math
from typing import Final, NamedTuple

import msgspec

from feature_repo.compact import DAY_S, MICRO, Key

LONG_HALF_LIFE_S: Final = 112 * DAY_S
SHORT_HALF_LIFE_S: Final = 7 * DAY_S


class Touch(NamedTuple):
    """What one event type does to an interest.

    ``step`` is added to both weights (millionths), ``net`` to the signed number of touches,
    ``counter`` names the evidence it moves by ``net``.
    """

    step: int
    net: int
    counter: str
    item_only: bool = False


TOUCHES: Final = {
    "view_item": Touch(100_000, 1, "views"),
    "select_item": Touch(100_000, 1, "views"),
    "share": Touch(300_000, 1, ""),
    "add_to_wishlist": Touch(300_000, 1, ""),
    "add_to_cart": Touch(300_000, 1, "carts"),
    "rate_item": Touch(300_000, 1, ""),
    "purchase": Touch(MICRO, 1, "purchases"),
    "remove_from_wishlist": Touch(-300_000, -1, ""),
    "remove_from_cart": Touch(-300_000, -1, "carts"),
    "refund": Touch(-MICRO, -1, "purchases"),
    "not_interested": Touch(-MICRO, -1, "", item_only=True),
}
"""Types absent here (impressions, custom events, messages) are no evidence of interest."""


class Interest(msgspec.Struct, array_like=True, gc=False):
    """One entry: evidence and two decayed weights as of ``last_at``.

    Attributes
    ----------
    first_at, last_at
        First and last touch, epoch seconds.
    net
        Signed number of touches; the entry is dropped at 0.
    views, carts, purchases
        Evidence; purchases counts distinct orders.
    long, short
        Decayed weights as of ``last_at``, millionths.
    last_order
        Number of the user's order that last bought it, 0 for none.
    purchase_after_s, purchase_before_s
        First purchase minus first touch; last touch minus last purchase.
    """

    first_at: int
    last_at: int
    net: int = 0
    views: int = 0
    carts: int = 0
    purchases: int = 0
    long: int = 0
    short: int = 0
    last_order: int = 0
    purchase_after_s: int = 0
    purchase_before_s: int = 0

    @property
    def first_purchase_at(self) -> int:
        """Epoch seconds of the first purchase; meaningful only with ``purchases`` > 0."""
        return self.first_at + self.purchase_after_s

    @property
    def last_purchase_at(self) -> int:
        """Epoch seconds of the last purchase; meaningful only with ``purchases`` > 0."""
        return self.last_at - self.purchase_before_s


Table = dict[Key, Interest]
"""Entries by key, in order of first touch."""


def decayed(micro: int, elapsed_s: int, half_life_s: int) -> float:
    """Return a stored weight after ``elapsed_s``: ``w · 2^(−elapsed/H)``, elapsed ≥ 0.

    Examples
    --------
    >>> decayed(2_000_000, 7 * 86_400, SHORT_HALF_LIFE_S)
    1.0
    """
    return micro / MICRO * math.exp2(-max(0, elapsed_s) / half_life_s)


def touch(table: Table, key: Key, rule: Touch, at: int, order: int) -> None:
    """Apply one event's touch of ``key`` at ``at`` (epoch seconds).

    ``order`` is the number of the user's current order; a purchase that continues an order
    already counted for this key moves only the times. A touch that takes away from a key
    not in the table changes nothing.
    """
    step, net, counter, _ = rule
    entry = table.get(key)
    if entry is None:
        if net < 0:
            return
        entry = table[key] = Interest(at, at)
    late = 0 if at == entry.last_at else _move(entry, at)
    if counter == "purchases" and net > 0:
        _time_purchase(entry, at)
        if entry.last_order == order:
            return
        entry.last_order = order
        entry.purchases += 1
    elif counter:
        setattr(entry, counter, max(0, getattr(entry, counter) + net))
    entry.net += net
    if late:
        entry.long += round(step * math.exp2(-late / LONG_HALF_LIFE_S))
        entry.short += round(step * math.exp2(-late / SHORT_HALF_LIFE_S))
    else:
        entry.long += step
        entry.short += step
    if net < 0:
        entry.long, entry.short = max(0, entry.long), max(0, entry.short)
        if entry.net <= 0:
            del table[key]


def _move(entry: Interest, at: int) -> int:
    """Bring the entry to the time of a touch; return by how many seconds the touch is late."""
    elapsed = at - entry.last_at
    if elapsed > 0:
        entry.long = round(entry.long * math.exp2(-elapsed / LONG_HALF_LIFE_S))
        entry.short = round(entry.short * math.exp2(-elapsed / SHORT_HALF_LIFE_S))
        entry.last_at = at
        if entry.purchases:
            entry.purchase_before_s += elapsed
        return 0
    if at < entry.first_at:
        if entry.purchases:
            entry.purchase_after_s += entry.first_at - at
        entry.first_at = at
    return -elapsed


def _time_purchase(entry: Interest, at: int) -> None:
    after, before = at - entry.first_at, entry.last_at - at
    if entry.purchases == 0:
        entry.purchase_after_s, entry.purchase_before_s = after, before
        return
    if after < entry.purchase_after_s:
        entry.purchase_after_s = after
    if before < entry.purchase_before_s:
        entry.purchase_before_s = before


class Capacity(NamedTuple):
    """How many entries a table keeps: the ``heaviest``, beside them the ``newest``.

    A table may run over by ``slack`` entries before it is cut, so that most events need no
    cut at all.
    """

    heaviest: int
    newest: int
    slack: int

    @property
    def most(self) -> int:
        """Most entries after any event; below it nothing is ever dropped."""
        return self.heaviest + self.newest + self.slack


def prune(table: Table, capacity: Capacity) -> None:
    """Cut a table over its capacity to the newest entries and the heaviest of the others.

    Newest by the last touch, weight by the long weight. All weights would be decayed to one
    moment; which one does not change the ranking, so ``log2(w) + last_at/H`` ranks them.
    Among equals the entry touched first goes first.
    """
    heaviest, newest, slack = capacity
    surplus = len(table) - heaviest - newest
    if surplus <= slack:
        return
    by_time = [(entry.last_at, n, key, entry) for n, (key, entry) in enumerate(table.items())]
    by_time.sort()
    log2 = math.log2
    ranked = [
        (log2(entry.long or 0.5) + at / LONG_HALF_LIFE_S, n, key)
        for at, n, key, entry in by_time[:-newest]
    ]
    ranked.sort()
    for _, _, key in ranked[:surplus]:
        del table[key]
