"""Consent by purpose, and the pseudonyms linked to a user.

Belongs here: what the user allows, and which pseudonyms are theirs. Not here: what may be
done with it; that is decided where a purpose is served.

Absence means not granted, so the bounded tables may forget: a purpose for which there is no room
reads as not granted, and what is denied is never forgotten for it.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from feature_repo.events.schema import EventRecord

MAX_PURPOSES: Final = 32
MAX_LINKED: Final = 32
MESSAGE_CHANNELS: Final = ("email", "sms", "push")
MARKETING: Final = "marketing_"
"""``marketing_email`` and ``email`` are one purpose in two spellings."""


class Consent(msgspec.Struct, array_like=True, gc=False):
    """One purpose: granted or not, since when (epoch seconds), said by which source."""

    granted: bool
    at: int
    source: str


class ConsentAndLinks(msgspec.Struct, array_like=True):
    """Consent by purpose; the last linked pseudonyms."""

    consent: dict[str, Consent] = {}
    linked: list[str] = []


def update(state: ConsentAndLinks, event: EventRecord) -> None:
    """Apply what an event says about consent and identity; see `say`."""
    if event.linked is not None and event.linked not in state.linked:
        state.linked.append(event.linked)
        del state.linked[:-MAX_LINKED]
    for purpose, granted in read_statements(event).items():
        say(state.consent, purpose, Consent(granted, counted_ms(event) // 1000, event.source))


def say(consent: dict[str, Consent], purpose: str, new: Consent, most: int = MAX_PURPOSES) -> None:
    """Put down a statement about a purpose, if it holds.

    Of two the later holds, by event time or by receipt, whichever is earlier: a clock that is
    ahead outvotes nobody. Of two at the same second a denial holds. A new purpose beyond ``most``
    is not put down; a denial counts for the other spelling that is there as well, so that it
    holds without room of its own.
    """
    for name in (purpose,) if new.granted else {purpose, *spellings(purpose)} & consent.keys():
        known = consent.get(name)
        if known is not None and (new.at, not new.granted) >= (known.at, not known.granted):
            consent[name] = new
    if purpose not in consent and len(consent) < most:
        consent[purpose] = new


def needs_no_room(consent: Mapping[str, Consent], purpose: str, *, granted: bool) -> bool:
    """Say whether a statement needs no room of its own: see `say`."""
    return purpose in consent or (
        not granted and any(name in consent for name in spellings(purpose))
    )


def counted_ms(event: EventRecord) -> int:
    """Return the time from which a statement counts, epoch milliseconds.

    A record without a time of receipt (0) counts from its own.
    """
    return min(event.time_ms, event.received_ms or event.time_ms)


def is_granted(consent: Mapping[str, Consent], purpose: str) -> bool:
    """Say whether a purpose is granted: by the later statement, in whichever spelling."""
    known = [consent[name] for name in spellings(purpose) if name in consent]
    return bool(known) and max(known, key=lambda one: (one.at, not one.granted)).granted


def spellings(purpose: str) -> tuple[str, str]:
    """Return both names of a purpose, the shorter first.

    Examples
    --------
    >>> spellings("marketing_email")
    ('email', 'marketing_email')
    """
    bare = purpose.removeprefix(MARKETING)
    return bare, MARKETING + bare


def read_statements(event: EventRecord) -> dict[str, bool]:
    """Return what an event says about consent, by purpose; see `parse_statements`."""
    return parse_statements(event.type, event.consent, event.properties, event.channel)


def parse_statements(
    event_type: str,
    consent: dict[str, bool] | None,
    properties: dict[str, Any] | None,
    channel: str | None = None,
) -> dict[str, bool]:
    """Return consent by purpose: the ``consent`` member, else properties of consent_updated.

    Properties are read as ``{"purpose": "ads", "granted": true}`` or as ``{"ads": true}``.
    message_unsubscribed denies its channel as well, in both spellings; without one, all of
    `MESSAGE_CHANNELS`.

    Examples
    --------
    >>> parse_statements("consent_updated", None, {"purpose": "ads", "granted": True})
    {'ads': True}
    >>> parse_statements("message_unsubscribed", None, None, "email")
    {'email': False, 'marketing_email': False}
    """
    if event_type == "message_unsubscribed":
        bare = [channel.strip().lower().removeprefix(MARKETING)] if channel else MESSAGE_CHANNELS
        denied = {name: False for one in bare for name in (one[:128], (MARKETING + one)[:128])}
        return {**(consent or {}), **denied}
    if consent is not None:
        return consent
    if event_type != "consent_updated" or not properties:
        return {}
    purpose, granted = properties.get("purpose"), properties.get("granted")
    if isinstance(purpose, str) and isinstance(granted, bool):
        return {purpose[:128]: granted}
    return {k[:128]: v for k, v in properties.items() if isinstance(v, bool)}
