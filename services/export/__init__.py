"""The export of a user: all that is kept of them, as one JSON document that is written as it goes.

Belongs here: what stands in it and in which order. How it is read again is
`feature_repo.importers.exported_events`'.
"""
