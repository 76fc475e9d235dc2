"""Portrait beside its peers: the same events, requests, candidates and metrics for all.

Belongs here: data sets, peers, and what they are measured by. Not here: the model itself.
"""
