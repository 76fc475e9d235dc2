"""The online store: connections, scripts, and the rows that are kept in it.

Belongs here: what speaks Redis's protocol and knows rows. Not here: Feast's classes
(`feature_repo.feast_stores`).
"""
