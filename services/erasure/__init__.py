"""Erasure over HTTP and in the store: requests, tombstones, the worker, receipts.

Belongs here: who is to be erased, from the request to the receipt, and what the store holds of
them. Not here: files below the state folder, which are `feature_repo.erasure`'s.
"""
