"""User context: what a recommendation knows of the user.

Belongs here: the user's side of a request. Not here: where it is read from (`request_context`).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from feature_repo.profile_views import metrics
from feature_repo.profile_views.shapes import ProfileInterest
from feature_repo.user_profile import explicit


class UserContext:
    """A user as recommendations see one; what the profile says is read when it is first asked for.

    Parameters
    ----------
    profile
        The explicit profile.
    now_s
        Moment as of which interests count, epoch seconds.
    learned
        Encoder state, or None: then the model is not asked.
    user_features
        Batch features of the model's feature service.
    """

    def __init__(
        self,
        profile: explicit.ExplicitProfile,
        now_s: int,
        learned: bytes | None = None,
        user_features: Mapping[str, Any] | None = None,
    ) -> None:
        self.learned = learned
        self.user_features = user_features
        self._profile = profile
        self._now_s = now_s

    @property
    def linked(self) -> Sequence[str]:
        """Pseudonyms of anonymous ids that became this user's."""
        return self._profile.linked

    @cached_property
    def interests(self) -> Sequence[ProfileInterest]:
        """As in the profile's ``interests``."""
        return metrics.interests(self._profile, self._now_s)

    @cached_property
    def interest_items(self) -> Collection[str]:
        """Items in the interests."""
        return [str(key) for key in self._profile.items.entries()]

    @cached_property
    def purchased(self) -> Collection[str]:
        """Items bought, first purchase first."""
        return explicit.purchased_items(self._profile)

    @cached_property
    def seen(self) -> Collection[str]:
        """Items looked at, carted, saved or bought."""
        return explicit.seen_items(self._profile)

    @cached_property
    def refused(self) -> Collection[str]:
        """Items marked not interested."""
        return explicit.refused_items(self._profile)

    @cached_property
    def known(self) -> bool:
        """Whether there is anything to personalise by."""
        tables = (self._profile.items, self._profile.categories, self._profile.brands)
        return any(map(len, tables)) or bool(self.refused)
