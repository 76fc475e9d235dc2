"""The bound of the embedded store's memory, where the store holds as much at its start.

A start writes leases and keys, and what is in the log is to be applied. Not here: what is refused
near the bound (`services.event_log.store_room`).
"""

from collections.abc import Callable
from typing import Any, Final

import structlog

from services.event_log.store_room import MOST_SHARE, read_memory

_MB: Final = 1 << 20
_ROOM: Final = 8 * _MB

_log = structlog.get_logger(__name__)


def make_room(client: Any, bound_mb: int) -> None:
    """Let a server whose bound is used up take 8 MB more, or 4 %, until its next start.

    Of a large one new events are refused all the same: it is over 95 % full then.
    """
    used, _ = read_memory(client.info("memory"))
    most = used + max(_ROOM, used // 25)
    if most > bound_mb * _MB:
        client.config_set("maxmemory", most)
        _log.warning("store_over_its_bound", used=used, bound=bound_mb * _MB, most=most)


def tell_full(client: Any, say: Callable[[str], None]) -> None:
    """Say what to do if a store starts so full that it takes few new events or none."""
    used, most = read_memory(client.info("memory"))
    if used + _ROOM >= most or used > MOST_SHARE * most:
        say(
            f"the store holds {used // _MB:,} MB, about as much as it may: new events are 503 now "
            "or soon. Run `portrait privacy sweep`, or start with PORTRAIT_STORE_MEMORY_MB over "
            f"{int(used / MOST_SHARE) // _MB + 10:,}"
        )
