"""Models in service: loaded once a process, and the transition of both halves of a profile.

Belongs here: which model is served, and f(u, x). Not here: ranking (`services.recommend`).
"""
