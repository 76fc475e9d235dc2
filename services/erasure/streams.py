"""Streams of the store without some of their entries, in their bytes too.

An entry that is deleted or trimmed away stays in the memory of its node of the stream, and so in
the server's files, until the node goes.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from feature_repo.online.connection import translated
from feature_repo.online.lua import Script
from services.event_log.keys import cursor_key, log_key
from services.event_log.receipt import stream_id

_REWRITE: Final = Script((Path(__file__).parent / "rewrite.lua").read_text())
_PAGE: Final = 1000
_NODE_BYTES: Final = 4096
"""Of a server's ``stream-node-max-bytes``: an entry of so many begins another node."""


def rewrite_stream(client: Any, key: bytes, entries: Collection[bytes]) -> None:
    """Write a stream anew without ``entries``, beside who appends to it.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; repeating it is safe.
    """
    beside = key + b":beside" if b"{" in key else b"{%s}:beside" % key
    start = b"-"
    with translated():
        client.delete(beside)  # of one who was killed
        while page := [name for name, _ in client.xrange(key, start, count=_PAGE)]:
            end = page[-1] if len(page) == _PAGE else b"+"
            _REWRITE(client, [key, beside], [start, end, *(n for n in page if n in entries)])
            if end == b"+":
                return
            start = b"(" + end
        _REWRITE(client, [key, beside], [start, b"+"])


def mark_end(client: Any, partition: int) -> bytes:
    """Append an entry that says nothing to a log and return its id.

    Once it is the first that the log holds, no byte of an earlier one is left.
    """
    with translated():
        marked: bytes = client.xadd(log_key(partition), {"n": bytes(_NODE_BYTES)})
    return marked


def is_drained(client: Any, partition: int, mark: bytes) -> bool:
    """Say whether everything before a mark is applied, archived and gone from the log."""
    with translated():
        archived = client.hget(cursor_key(partition), "archived") or b"0-0"
    return stream_id(archived) >= stream_id(mark)
