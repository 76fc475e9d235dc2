"""The catalogue in service: items, their routes, and what sells lately.

Belongs here: the store's items and each gateway's copy. Not here: what an item may say
(`feature_repo.archive.catalogue`).
"""
