"""User context: what a recommendation knows of the user.

Belongs here: the user's side of a request. Not here: where it is read from (`request`).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from feature_repo.profile_views import metrics
from feature_repo.user_profile import explicit


class UserContext:
    """A user as recommendations see one.

    Parameters
    ----------
    learned
        Encoder state, or None: then the model is not asked.
    interests, purchased, seen, refused
        Interests as in the profile, and item ids. What is left out is read from ``profile``
        when it is first asked for.
    user_features
        Batch features of the model's feature service.
    profile
        The explicit profile.
    now_s
        Moment as of which interests count, epoch seconds.
    """

    def __init__(
        self,
        learned: bytes | None = None,
        interests: Sequence[Mapping[str, Any]] | None = None,
        purchased: Collection[str] | None = None,
        seen: Collection[str] | None = None,
        refused: Collection[str] | None = None,
        user_features: Mapping[str, Any] | None = None,
        *,
        profile: explicit.ExplicitProfile | None = None,
        now_s: int = 0,
    ) -> None:
        self.learned = learned
        self.user_features = user_features
        self._profile = profile
        self._now_s = now_s
        given = {
            "interests": interests, "purchased": purchased, "seen": seen, "refused": refused,
        }  # fmt: skip
        self.__dict__.update({name: value for name, value in given.items() if value is not None})

    @property
    def linked(self) -> Sequence[str]:
        """Pseudonyms of anonymous ids that became this user's."""
        return () if self._profile is None else self._profile.linked

    @cached_property
    def interests(self) -> Sequence[Mapping[str, Any]]:
        """As in the profile's ``interests``."""
        return [] if self._profile is None else metrics.interests(self._profile, self._now_s)

    @cached_property
    def touched(self) -> Collection[str]:
        """Items in the interests."""
        if self._profile is None:
            return [str(each["key"]) for each in self.interests if each["kind"] == "item"]
        return [str(key) for key in self._profile.items.entries()]

    @cached_property
    def purchased(self) -> Collection[str]:
        """Items bought, first purchase first."""
        return () if self._profile is None else explicit.purchased_items(self._profile)

    @cached_property
    def seen(self) -> Collection[str]:
        """Items looked at, carted, saved or bought."""
        return () if self._profile is None else explicit.seen_items(self._profile)

    @cached_property
    def refused(self) -> Collection[str]:
        """Items marked not interested."""
        return () if self._profile is None else explicit.refused_items(self._profile)

    @cached_property
    def known(self) -> bool:
        """Whether there is anything to personalise by."""
        if self._profile is None:
            return self.learned is not None or bool(self.interests)
        tables = (self._profile.items, self._profile.categories, self._profile.brands)
        return any(map(len, tables)) or bool(self.refused)
