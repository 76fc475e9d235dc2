"""Benches of `portrait bench`: one file each, and what they share.

Belongs here: loads, clients, peers and figures of the benches. Not here: anything that the
service runs, or what breaks it on purpose (`services.lab.chaos`).
"""
