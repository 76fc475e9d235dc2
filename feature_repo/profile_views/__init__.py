"""Profile views: the figures and pages that are read from a profile's state.

Belongs here: ``seed``, ``summary`` and ``full``, profile metrics and the engagement score. Not
here: the state itself (`feature_repo.user_profile`).
"""
