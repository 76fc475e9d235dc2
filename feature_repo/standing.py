"""Where a user stands with the shop: consent by purpose and the identities linked.

Belongs here: what the user allows, and which pseudonyms are theirs. Not here: what may be
done with it; that is decided where a purpose is served.

Absence means not granted, so the bounded tables may forget: a purpose that falls out reads
as not granted.
"""

from typing import Any, Final

import msgspec

from feature_repo.events import EventRecord

MAX_PURPOSES: Final = 32
MAX_LINKED: Final = 32


class Consent(msgspec.Struct, array_like=True, gc=False):
    """One purpose: granted or not, since when (epoch seconds), said by which source."""

    granted: bool
    at: int
    source: str


class Standing(msgspec.Struct, array_like=True):
    """Consent by purpose; the last linked pseudonyms."""

    consent: dict[str, Consent] = {}
    linked: list[str] = []


def update(standing: Standing, event: EventRecord, at: int) -> None:
    """Apply what an event at ``at`` (epoch seconds) says about consent and identity.

    Of two statements about one purpose the later in event time holds; of two at the same
    second, the one that arrives last.
    """
    if event.linked is not None and event.linked not in standing.linked:
        standing.linked.append(event.linked)
        del standing.linked[:-MAX_LINKED]
    for purpose, granted in stated(event.type, event.consent, event.properties).items():
        known = standing.consent.get(purpose)
        if known is None or at >= known.at:
            standing.consent[purpose] = Consent(granted, at, event.source)
    while len(standing.consent) > MAX_PURPOSES:
        del standing.consent[next(iter(standing.consent))]


def stated(
    event_type: str, consent: dict[str, bool] | None, properties: dict[str, Any] | None
) -> dict[str, bool]:
    """Return consent by purpose: the ``consent`` member, else properties of consent_updated.

    Properties are read as ``{"purpose": "ads", "granted": true}`` or as ``{"ads": true}``.

    Examples
    --------
    >>> stated("consent_updated", None, {"purpose": "ads", "granted": True})
    {'ads': True}
    """
    if consent is not None:
        return consent
    if event_type != "consent_updated" or not properties:
        return {}
    purpose, granted = properties.get("purpose"), properties.get("granted")
    if isinstance(purpose, str) and isinstance(granted, bool):
        return {purpose[:128]: granted}
    return {k[:128]: v for k, v in properties.items() if isinstance(v, bool)}
