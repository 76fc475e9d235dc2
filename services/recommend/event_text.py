"""Sentences about events that happened: what was done, with what, and when. Nothing else.

A sentence is made from one stored event and the catalogue's titles; there is no sentence
without an event.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from feature_repo.events.schema import EventRecord
from feature_repo.events.types import TYPES

_MOST_ITEMS: Final = 3


def sentence(
    event: EventRecord, title: Callable[[str], str], now_ms: int, about: Sequence[str] = ()
) -> str:
    """Return an event in words, without a subject.

    Parameters
    ----------
    title
        Gives the shown name of an item.
    now_ms
        Decides whether the year is said, epoch milliseconds.
    about
        Items to be named first, where the event has them.

    Examples
    --------
    >>> from feature_repo.events.schema import ItemRecord
    >>> event = EventRecord(
    ...     id="1", type="purchase", user="u", time_ms=1_508_572_800_000, received_ms=0,
    ...     items=[ItemRecord("a"), ItemRecord("b")],
    ... )
    >>> sentence(event, {"a": "milk", "b": "coffee"}.get, 1_514_000_000_000, about=["b"])
    'bought coffee and milk on 21 Oct'
    """
    items = list(dict.fromkeys(item.item_id for item in event.items))
    items.sort(key=lambda item: item not in about)
    things = _join_names([title(item) for item in items])
    return f"{_phrase(event.type, things)} on {_day(event, now_ms)}"


def _phrase(event_type: str, things: str) -> str:
    known = TYPES.get(event_type)
    phrase = (known and known.text) or f"did “{event_type.replace('_', ' ')}” with"
    return phrase.format(things) if "{}" in phrase else f"{phrase} {things}"


def _join_names(names: Sequence[str]) -> str:
    shown, rest = list(names[:_MOST_ITEMS]), len(names) - _MOST_ITEMS
    if rest > 0:
        shown.append(f"{rest} more item{'s' if rest > 1 else ''}")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _day(event: EventRecord, now_ms: int) -> str:
    day, now = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (event.time_ms, now_ms))
    text = f"{day.day} {day:%b}"
    return text if day.year == now.year else f"{text} {day.year}"
