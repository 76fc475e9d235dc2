"""The explicit profile of a user: what is known without a model, as a fold of the events.

Belongs here: the state, what an event does to it, and how two histories become one. Not here: what
is read from a state (`feature_repo.profile_views`).
"""
