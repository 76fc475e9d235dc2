"""Scores in service: from a learned state to a ranking, a transition, an attribution.

Belongs here: what a loaded model answers. Not here: fitting it (`training.fit`).
"""
