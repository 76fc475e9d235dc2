"""Neighbours: what the items a user holds say about every other, as item-item rows.

Belongs here: fitting the rows and reading their channels. Not here: how much they count beside the
network (`training.network.stacking`, `training.network.mixture`).
"""
