"""Erasure: people removed from the files below the state folder.

Belongs here: who is erased, what was removed from where, and the files themselves. Not here: the
store, and when an erasure is carried out.
"""
