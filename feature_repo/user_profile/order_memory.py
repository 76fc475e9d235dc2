"""Recent orders: what is remembered of them so that an order told again is not counted again.

An order id that comes again within `MEMORY_DAYS` and the user's last `MEMORY_EVENTS` purchase
events is the same order: its amounts take the place of those told before; where it states none,
what was told stays. One exception: an order of which an event held as many lines as an event can,
`MAX_ITEMS`, is taken to be split over several events, and that one, what was told before it and
what comes after it add up. Belongs here: the bytes of
that memory, and the same rule for a whole history and in SQL. Not here: what orders do to a profile
(`orders`).
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from feature_repo.events.schema import MAX_ITEMS, EventRecord
from feature_repo.user_profile.compact import DAY_S, pack_varint, unpack_varint

MEMORY_EVENTS: Final = 32
MEMORY_DAYS: Final = 91

_MARK: Final = 4  # of 32 marks two are equal by chance once in seven million users
_HEAD: Final = _MARK + 3


def recall(memory: bytes, order_id: str, day: int) -> tuple[int, int] | None:
    """Return lines and money (thousandths) that an order was last told with; None: it is new.

    ``day`` is the epoch day (UTC) of the event that tells of it. `MAX_ITEMS` lines mean that the
    order is split.
    """
    mark, found = _mark(order_id), None
    at = 0
    while at < len(memory):
        head = at
        money, at = unpack_varint(memory, head + _HEAD)
        if memory[head : head + _MARK] == mark:
            told = memory[head + _MARK] | memory[head + _MARK + 1] << 8
            near = abs(day - told) <= MEMORY_DAYS
            found = (int(memory[head + _MARK + 2]), money) if near else None
    return found


def remember(memory: bytes, order_id: str, day: int, lines: int, money: int) -> bytes:
    """Return the memory with a purchase event behind the others; the oldest goes.

    Parameters
    ----------
    lines
        Lines of the event; `MAX_ITEMS` once the order is split.
    money
        What the event says that the order is worth, thousandths, ≥ 0.
    """
    head = bytes((day & 0xFF, day >> 8 & 0xFF, min(lines, MAX_ITEMS)))
    memory += _mark(order_id) + head + pack_varint(money)
    ends, at = list[int](), 0
    while at < len(memory):
        _, at = unpack_varint(memory, at + _HEAD)
        ends.append(at)
    return memory[ends[-MEMORY_EVENTS - 1] :] if len(ends) > MEMORY_EVENTS else memory


def without_repeats(history: Sequence[EventRecord]) -> list[EventRecord]:
    """Return one user's events in fold order without the purchases that tell of an order again.

    It leaves out those that move no learned state (`explicit.apply`); parts of a split order stay.

    Examples
    --------
    >>> order = EventRecord(
    ...     id="1", type="purchase", user="u", time_ms=0, received_ms=0, order_id="o"
    ... )
    >>> len(without_repeats([order, order]))
    1
    """
    ids = [event.order_id or event.id for event in history if event.type == "purchase"]
    if len(set(ids)) == len(ids):
        return list(history)
    found, memory = list[EventRecord](), b""
    for event in history:
        if event.type == "purchase":
            order_id, day = event.order_id or event.id, event.time_ms // (1000 * DAY_S)
            told, lines = recall(memory, order_id, day), len(event.items)
            is_whole = lines < MAX_ITEMS and (told is None or told[0] < MAX_ITEMS)
            memory = remember(memory, order_id, day, lines if is_whole else MAX_ITEMS, 0)
            if told is not None and is_whole:
                continue
        found.append(event)
    return found


def _mark(order_id: str) -> bytes:
    return blake2b(order_id.encode(), digest_size=_MARK).digest()


def told_again(source: str, *, user: str, event: str, order: str, day: str) -> str:
    """Return the SELECT of purchases with what they say again of an order, in SQL.

    Adds ``is_new``, and ``before_m`` and ``before_lines``, which the event takes the place of: 0
    where it takes none, its own where it states no amount, so that nothing changes. ``first_event``
    is the one that began the order.

    Parameters
    ----------
    source
        FROM clause of purchases: ``order_key``, ``worth_m`` (thousandths), ``num_lines``,
        ``is_stated``.
    user, event, day
        Columns: whose, which, and the epoch day.
    order
        What the events of one user are ordered by.
    """
    same = f"PARTITION BY {user}, order_key ORDER BY {order}"
    chain = f"PARTITION BY {user}, order_key, chain ORDER BY {order}"
    before = f"OVER ({chain} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    told = "CASE WHEN is_new OR is_stated THEN {} END"
    return f"""
SELECT * EXCLUDE (nth, chain, is_whole),
    CASE WHEN is_new OR NOT is_whole THEN 0 WHEN NOT is_stated THEN worth_m
        ELSE last_value({told.format("worth_m")} IGNORE NULLS) {before} END::BIGINT AS before_m,
    CASE WHEN is_new OR NOT is_whole THEN 0 WHEN NOT is_stated THEN num_lines
        ELSE last_value({told.format("num_lines")} IGNORE NULLS) {before}
        END::BIGINT AS before_lines,
    NOT is_new AND is_whole AS takes_place, first_value({event}) OVER ({chain}) AS first_event
FROM (
    SELECT *, max(num_lines) OVER ({chain} ROWS UNBOUNDED PRECEDING) < {MAX_ITEMS} AS is_whole
    FROM (
        SELECT *, sum(is_new::INTEGER) OVER ({same}) AS chain
        FROM (
            SELECT *, NOT coalesce(nth - lag(nth) OVER ({same}) <= {MEMORY_EVENTS}
                AND abs({day} - lag({day}) OVER ({same})) <= {MEMORY_DAYS}, false) AS is_new
            FROM (
                SELECT *, row_number() OVER (PARTITION BY {user} ORDER BY {order}) AS nth
                FROM {source}
            )
        )
    )
)
"""  # noqa: S608 - built from names in this package
