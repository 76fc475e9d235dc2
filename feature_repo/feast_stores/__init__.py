"""Feast's stores: offline on Parquet parts, online on Redis, registry, materialize engine.

Belongs here: classes that Feast loads, and opening its store. Not here: definitions
(`feature_repo.definitions`), rows of the online store as the updater writes them
(`feature_repo.online`).
"""
