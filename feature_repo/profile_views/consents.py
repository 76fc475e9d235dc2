"""Consent as it is shown: what a user said, and what stands of each purpose at a moment.

Belongs here: the form. What is allowed is `feature_repo.user_profile.purposes`'.
"""

from collections.abc import Mapping
from typing import Final

from feature_repo.profile_views.metrics import format_time
from feature_repo.profile_views.shapes import ProfileConsent
from feature_repo.user_profile.consent import NAMED, Consent, find_statement
from feature_repo.user_profile.purposes import PURPOSES, stands

BY_DEFAULT: Final = "default"
"""Source of what stands when nobody was asked; it has no time."""


def show(said: Consent) -> ProfileConsent:
    """Return a statement as it is shown."""
    return {
        "granted": said.granted,
        "at": format_time(said.at),
        "source": said.source,
        "expires_at": format_time(said.expires_at) if said.expires_at else None,
        "version": said.version or None,
    }


def show_standing(
    consent: Mapping[str, Consent], now_s: int, defaults: Mapping[str, bool]
) -> dict[str, ProfileConsent]:
    """Return what stands at a moment of each purpose that has a name, and of those of the shop.

    Each is there once: of ``email`` and ``marketing_email`` the longer name.
    """
    shown = dict[str, ProfileConsent]()
    own = (name for name in consent if name not in NAMED)
    for purpose in (*PURPOSES, *own):
        said = find_statement(consent, purpose, now_s)
        if said is not None:
            shown[purpose] = show(said)
        else:
            granted = stands(purpose, defaults)
            shown[purpose] = {
                "granted": granted, "at": None, "source": BY_DEFAULT, "expires_at": None,
                "version": None,
            }  # fmt: skip
    return shown
