"""The learned state: item table, recurrence and the bytes of both, compiled.

Belongs here: what one event does to a state, and a state at rest. Not here: what a state answers
(`training.scoring`).
"""
