"""The event log: appended to, read, and let go once it is applied and archived.

Belongs here: its entries, keys and scripts. Not here: what an entry does to a profile
(`services.update.updater`).
"""
