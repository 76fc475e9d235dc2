"""The event archive: Parquet parts, their compaction, and what is read of them.

Belongs here: files below ``archive/`` and the bounds of queries over them. Not here: the log from
which they are filled (`services.event_log`).
"""
