"""Audiences as the service answers them: routes, definitions, the index, who comes and goes.

Belongs here: what is kept of audiences, and what is asked of them. Not here: the rules' language
and its two back ends (`feature_repo.audiences`).
"""
