"""Features: the list of all, the tables that hold them at midnights, and the point-in-time join.

Belongs here: what a feature is and how its column is computed. Not here: how Feast keeps it
(`feature_repo.feast_stores`).
"""
