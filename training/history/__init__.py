"""Histories as arrays: from the archive to vocabulary, event sequences and point-in-time features.

Belongs here: what the networks read, before any network. Not here: examples that a network is
asked (`training.network.examples`).
"""
