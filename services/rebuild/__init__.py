"""Rows made again from the log: all of them, or some users' while updaters go on."""
