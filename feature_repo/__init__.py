"""Knowledge of users and items, and how it changes.

Belongs here: the event schema, pseudonyms, the explicit profile and its fold, Feast's
definitions, the online store, the archive and the importers. Does not belong here:
anything that needs torch (``training``) or answers a request (``services``).
"""
