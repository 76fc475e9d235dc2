"""Studies: what a part of the model is worth, and what it costs.

Belongs here: one file a study. Not here: peers and how all are measured
(`training.lab.comparison`).
"""
