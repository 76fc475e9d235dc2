"""The running process: logs, signals, threads, clocks, progress.

Belongs here: what any process of the service needs and no subject owns.
"""
