"""Consent by purpose, and the pseudonyms linked to a user.

Belongs here: what the user said, and which pseudonyms are theirs. Not here: what may be
done with it; that is `purposes`'.

The shop's own purposes are denied until they are granted, so their table may be bounded: one for
which there is no room reads as denied. Those that have a name always have room.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from feature_repo.events.fields import parse_time
from feature_repo.events.schema import EventRecord

MAX_PURPOSES: Final = 32
"""Of the shop's own, besides `NAMED`."""
MAX_LINKED: Final = 32
MESSAGE_CHANNELS: Final = ("email", "sms", "push")
MARKETING: Final = "marketing_"
"""``marketing_email`` and ``email`` are one purpose in two spellings."""
NAMED: Final = frozenset(
    ("analytics", "personalization", "profiling", "ads", *MESSAGE_CHANNELS)
) | {MARKETING + channel for channel in MESSAGE_CHANNELS}
"""Names of purposes that mean the same in every shop."""
TERMS: Final = "terms"
"""Property of an event in which its grants have ``expires_at`` and ``version``, by purpose."""
MAX_VERSION: Final = 64


class Consent(msgspec.Struct, array_like=True, gc=False):
    """One purpose: granted or not, since when (epoch seconds), said by which source.

    A grant holds until ``expires_at`` (epoch seconds; 0: without end). ``version`` is the text's
    that was agreed to, if it was told.
    """

    granted: bool
    at: int
    source: str
    expires_at: int = 0
    version: str = ""


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
        say(state.consent, purpose, make_consent(event, purpose, granted=granted))


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
    if purpose not in consent and (purpose in NAMED or count_own(consent) < most):
        consent[purpose] = new


def count_own(names: Iterable[str]) -> int:
    """Return how many of the purposes are the shop's own."""
    return sum(name not in NAMED for name in names)


def needs_no_room(consent: Mapping[str, Consent], purpose: str, *, granted: bool) -> bool:
    """Say whether a statement needs no room of its own: see `say`."""
    return (
        purpose in NAMED
        or purpose in consent
        or (not granted and any(name in consent for name in spellings(purpose)))
    )


def make_consent(event: EventRecord, purpose: str, *, granted: bool) -> Consent:
    """Return an event's statement about a purpose, with its terms."""
    at = counted_ms(event) // 1000
    if not granted:
        return Consent(False, at, event.source, 0, _terms(event.properties, purpose)[1])
    return Consent(True, at, event.source, *_terms(event.properties, purpose))


def expiry_of(properties: dict[str, Any] | None, purpose: str) -> int:
    """Return when a grant of an event with these properties ends, epoch seconds; 0: never.

    What is no time ends it at once: nobody agreed to more.
    """
    return _terms(properties, purpose)[0]


def _terms(properties: dict[str, Any] | None, purpose: str) -> tuple[int, str]:
    told = (properties or {}).get(TERMS)
    mine = told.get(purpose) if isinstance(told, dict) else None
    if not isinstance(mine, dict):
        return 0, ""
    version = mine.get("version")
    version = version[:MAX_VERSION] if isinstance(version, str) else ""
    if mine.get("expires_at") is None:
        return 0, version
    try:
        return max(1, parse_time(mine["expires_at"]) // 1000), version
    except ValueError:
        return 1, version


def counted_ms(event: EventRecord) -> int:
    """Return the time from which a statement counts, epoch milliseconds.

    A record without a time of receipt (0) counts from its own.
    """
    return min(event.time_ms, event.received_ms or event.time_ms)


def find_statement(consent: Mapping[str, Consent], purpose: str, now_s: int) -> Consent | None:
    """Return the statement that holds about a purpose at a moment, in whichever spelling.

    That is the later one; None if there is none, or it is a grant that has expired.
    """
    known = [consent[name] for name in spellings(purpose) if name in consent]
    if not known:
        return None
    last = max(known, key=lambda one: (one.at, not one.granted))
    return None if last.granted and 0 < last.expires_at <= now_s else last


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


def only_statements(event: EventRecord, *, linking: bool = False) -> EventRecord | None:
    """Return what an event says about consent, without its other content; None if nothing.

    Parameters
    ----------
    linking
        Whether it makes an anonymous id its user's, which is said as well.
    """
    said = read_statements(event)
    if not said and not linking:
        return None
    terms = (event.properties or {}).get(TERMS)
    return EventRecord(
        id=event.id, type="consent_updated", user=event.user, time_ms=event.time_ms,
        received_ms=event.received_ms, source=event.source, anonymous=event.anonymous,
        linked=event.linked, consent=said, properties={TERMS: terms} if terms else None,
        key=event.key,
    )  # fmt: skip


def find_misnamed(
    event_type: str, consent: dict[str, bool] | None, properties: dict[str, Any] | None
) -> tuple[tuple[str, ...], str] | None:
    """Return where an event names a purpose otherwise than by case and blanks, and its name.

    It would decide nothing. None: it does not.

    Examples
    --------
    >>> find_misnamed("consent_updated", {"Ads": False}, None)
    (('consent', 'Ads'), 'ads')
    >>> find_misnamed("consent_updated", None, {"purpose": "profiling ", "granted": False})
    (('properties', 'purpose'), 'profiling')
    """
    if consent is None and event_type != "consent_updated":
        return None
    for purpose in parse_statements(event_type, consent, properties):
        name = name_of(purpose)
        if name != purpose:
            if consent is not None:
                return ("consent", purpose), name
            return ("properties", purpose if purpose in (properties or {}) else "purpose"), name
    return None


def name_of(purpose: str) -> str:
    """Return the name of a purpose that differs from it by case or blanks only, else itself.

    Examples
    --------
    >>> name_of(" Marketing_Email"), name_of("Newsletter")
    ('marketing_email', 'Newsletter')
    """
    name = "".join(purpose.split()).casefold()
    return name if name in NAMED else purpose


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
