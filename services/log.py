"""The event log: append with deduplication, and the names of its keys.

What belongs together for whoever writes or reads the log: `services.append` writes events,
`services.log_keys` names the keys, `services.receipt` says where an event stands.
"""

from services.append import LAG_LIMIT, Appender, LogFullError
from services.log_keys import applied_channel, cursor_key, dedup_key, erased_key, log_key
from services.receipt import Appended, Receipt, merged, stream_id

__all__ = [
    "LAG_LIMIT", "Appended", "Appender", "LogFullError", "Receipt", "applied_channel",
    "cursor_key", "dedup_key", "erased_key", "log_key", "merged", "stream_id",
]  # fmt: skip
