"""The event: its schema, its fields, how it is decoded, and the pseudonyms it is kept under.

Belongs here: what one event may say. Not here: keeping events (`feature_repo.archive`), or what
they do to a profile (`feature_repo.user_profile`).
"""
