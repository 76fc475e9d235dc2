"""Purposes of consent, and whether one is allowed: the one place where that is decided.

Belongs here: which purposes have a name, what stands when nobody was asked, and `allowed`. Not
here: which of several statements holds (`consent`), and what is done for a purpose.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec

from feature_repo.user_profile.consent import Consent, find_statement, spellings

Purpose = Literal[
    "analytics", "personalization", "profiling", "marketing_email", "marketing_sms",
    "marketing_push", "ads",
]  # fmt: skip
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
DEFAULTS: Final[Mapping[str, bool]] = {
    name: name in ("analytics", "personalization", "profiling") for name in PURPOSES
}
"""What stands when nobody was asked, unless a setting says otherwise."""


SETTING: Final = "PORTRAIT_CONSENT_DEFAULTS"


def read_defaults(environment: Mapping[str, str]) -> dict[str, bool]:
    """Return what stands when nobody was asked, by the setting in an environment.

    Examples
    --------
    >>> read_defaults({SETTING: '{"analytics": false}'})["analytics"]
    False
    """
    given: dict[str, bool] = msgspec.json.decode(environment.get(SETTING) or "{}")
    return {**DEFAULTS, **given}


def allowed(
    consent: Mapping[str, Consent],
    purpose: str,
    now_s: int,
    defaults: Mapping[str, bool] = DEFAULTS,
) -> bool:
    """Say whether a user allows a purpose at a moment.

    Parameters
    ----------
    consent
        What the user said, by purpose.
    purpose
        In either of its spellings; one of the shop's own is denied until it is granted.
    now_s
        The moment, epoch seconds: a grant that has expired by then says nothing.
    defaults
        What stands when nobody was asked.

    Examples
    --------
    >>> allowed({}, "personalization", 0), allowed({}, "email", 0)
    (True, False)
    >>> allowed({"email": Consent(True, 0, "", expires_at=60)}, "marketing_email", 59)
    True
    """
    said = find_statement(consent, purpose, now_s)
    return stands(purpose, defaults) if said is None else said.granted


def stands(purpose: str, defaults: Mapping[str, bool] = DEFAULTS) -> bool:
    """Say whether a purpose is allowed when nobody was asked."""
    return any(defaults.get(name, False) for name in spellings(purpose))
