"""Views of a profile: ``seed``, ``summary`` and ``full`` of the HTTP contract.

Only the names others import belong here; each view has its own file, the figures are in
`metrics`, the state is in `user_profile.explicit`.
"""

from feature_repo.profile_views.full import LearnedSummary, full
from feature_repo.profile_views.seed import default_title, seed
from feature_repo.profile_views.summary import summary

__all__ = ["LearnedSummary", "default_title", "full", "seed", "summary"]
