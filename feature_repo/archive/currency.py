"""One currency: what an event says in another is turned into the shop's, or set aside.

Everything behind the border (folds, tables, reports) adds amounts up without asking what they are
in. So each line and each ``value`` passes here on its way in, over HTTP and in imports alike: a
currency with a rate is converted; the amounts of any other are moved out of the way into the
event's properties, and the event counts without them. What names no currency is in the shop's.
Belongs here: that rule, and which currency the shop's is where no setting says so.
"""

import fcntl
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import InvalidSettingError
from feature_repo.events.fields import MAX_AMOUNT, MAX_VALUE, SET_ASIDE
from feature_repo.events.schema import EventRecord, ItemRecord

REASON: Final = "other_currency"
FILE: Final = "currency"
"""File of the state folder that says what the shop's currency is."""
CLAIM: Final = "?"
"""Stands behind a noted currency that only keys of scope ``write`` have named."""
Stamp = tuple[int, int]
"""Inode and time of `FILE`: another one after each `note` that changed it."""
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Money:
    """What amounts are counted in.

    Attributes
    ----------
    currency
        The shop's (ISO 4217); None while nothing has named one.
    rates
        By currency, how many of the shop's units one unit is worth.
    """

    currency: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def rate(self, currency: str | None) -> float | None:
        """Return what one unit is worth; None if that is not known."""
        if currency is None or currency == self.currency:
            return 1.0
        return self.rates.get(currency)


def first_named(record: EventRecord) -> str | None:
    """Return the first currency that an event names, in capitals; None if it names none."""
    for named in (record.currency, *(item.currency for item in record.items)):
        if named:
            return named.upper()
    return None


def first_of_amounts(record: EventRecord) -> str | None:
    """Return the first currency, in capitals, of an event with an amount; None if there is none.

    What names a currency without an amount says nothing of what the shop counts in.

    Examples
    --------
    >>> event = EventRecord(
    ...     id="1", type="purchase", user="u", time_ms=0, received_ms=0, currency="USD"
    ... )
    >>> first_of_amounts(event)
    >>> event.value = 10.0
    >>> first_of_amounts(event)
    'USD'
    """
    return first_named(record) if has_amounts(record) else None


def has_amounts(record: EventRecord) -> bool:
    """Say whether an event states money at all."""
    return record.value is not None or any(item.price is not None for item in record.items)


def convert(record: EventRecord, money: Money) -> bool:
    """Turn an event's amounts into the shop's currency, in place; say whether any was set aside.

    Examples
    --------
    >>> event = EventRecord(
    ...     id="1", type="purchase", user="u", time_ms=0, received_ms=0, value=10.0, currency="USD"
    ... )
    >>> convert(event, Money("EUR", {"USD": 0.9})), event.value, event.currency
    (False, 9.0, 'EUR')
    """
    if first_named(record) is None:
        return False
    own = record.currency.upper() if record.currency else None
    if money.currency is None and not has_amounts(record):
        record.currency = own  # nothing to turn, and nothing to turn it into
        return False
    named = [item.currency.upper() if item.currency else own for item in record.items]
    of_value = own or (named[0] if named and len(set(named)) == 1 else None)
    lines, aside = list[dict[str, Any]](), dict[str, Any]()
    items = list[ItemRecord]()
    for number, (item, currency) in enumerate(zip(record.items, named, strict=True)):
        rate = money.rate(currency)
        if rate is None and (item.price is not None or item.discount is not None):
            lines.append({"line": number, "price": item.price, "discount": item.discount,
                          "currency": currency})  # fmt: skip
        items.append(_line(item, rate, None if currency is None else money.currency))
    rate = money.rate(of_value)
    if rate is None and record.value is not None:
        aside |= {"value": record.value, "currency": of_value}
    if lines:
        aside["lines"] = lines
    record.items = items
    record.value = _times(record.value, rate, MAX_VALUE)
    record.currency = None if rate is None or own is None else money.currency
    if aside:
        record.properties = {**(record.properties or {}), SET_ASIDE: {"reason": REASON, **aside}}
    return bool(aside)


def _line(item: ItemRecord, rate: float | None, shops: str | None) -> ItemRecord:
    if rate == 1.0 and item.currency in (None, shops):
        return item
    return msgspec.structs.replace(
        item,
        price=_times(item.price, rate, MAX_AMOUNT),
        discount=_times(item.discount, rate, MAX_AMOUNT),
        currency=None if rate is None or item.currency is None else shops,
    )


def _times(amount: float | None, rate: float | None, most: float) -> float | None:
    if amount is None or rate is None:
        return None
    return amount if rate == 1.0 else min(most, round(amount * rate, _DIGITS))


def known(home: Path) -> str | None:
    """Return the shop's currency as noted below ``home``, else the archive's most frequent one."""
    path = home / FILE
    if path.exists():
        return path.read_text().strip() or None  # a claim with its mark
    archive = Archive(home / "archive" / "events")
    if archive.empty():
        return None
    with duckdb.connect() as connection:
        row = connection.execute(
            "SELECT upper(code) FROM (SELECT currency AS code FROM read_parquet($1) UNION ALL "
            "SELECT unnest(items).currency FROM read_parquet($1)) "
            "WHERE regexp_full_match(code, '[A-Za-z]{3}') "
            "GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1",
            [archive.glob()],
        ).fetchone()
    return None if row is None else str(row[0])


def stamp(home: Path) -> Stamp | None:
    """Return which file the shop's currency is noted in; None if it is not noted."""
    try:
        status = (home / FILE).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def is_firm(noted: str | None) -> bool:
    """Say whether a currency is noted for good, by more than a claim."""
    return noted is not None and not noted.endswith(CLAIM)


def check(home: Path, setting: str | None) -> None:
    """Refuse another currency than the one that amounts below ``home`` are kept in.

    In an archive from before it was noted, that is the one that it names.

    Raises
    ------
    InvalidSettingError
        If ``setting`` is not what is noted for good, or `known` of an older archive.
    """
    noted = None if setting is None else known(home)
    if noted is not None and is_firm(noted) and noted != setting:
        raise InvalidSettingError(
            f"PORTRAIT_CURRENCY is {setting}, but the amounts kept below {home} are in {noted}: "
            f"set PORTRAIT_CURRENCY={noted} (PORTRAIT_EXCHANGE_RATES says what a {setting} is "
            f"worth in {noted}), or begin a new home for {setting}"
        )


def note(home: Path, currency: str) -> str:
    """Note the shop's currency below ``home``; return what is noted.

    What is noted for good stays; a claim (`CLAIM` behind it) gives way to what is no claim.
    """
    path = home / FILE
    home.mkdir(parents=True, exist_ok=True)
    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        noted = path.read_text().strip() if path.exists() else None
        if noted and (is_firm(noted) or not is_firm(currency)):
            return noted
        draft = home / f".{FILE}.{secrets.token_hex(8)}.tmp"
        try:
            draft.write_text(f"{currency}\n")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    finally:
        os.close(folder)
    return currency
