"""The server's own files: written anew, so that nothing that was removed is in them.

Replicas write theirs by themselves; backups are the operator's, and the receipt says so.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis

from feature_repo.erasure.removal import Removal
from feature_repo.online.connection import translated

_LOOK_S: Final = 0.05
_OPERATOR: Final = "the store lets nobody rewrite its files from here: run BGREWRITEAOF on it"
_BACKUPS: Final = "backups and replicas of the store are not looked at"


def rewrite_files(client: Any, wait: Callable[[float], None]) -> Removal:
    """Have every server of the store write its files anew and return when they are written.

    Parameters
    ----------
    wait
        Waits so many seconds, or raises.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    count = 0
    with translated():
        for node in _nodes(client):
            try:
                count += _rewrite(node, wait)
            except redis.ResponseError as error:
                if not _is_not_permitted(error):
                    raise
                return Removal("store_files", count, count, note=_OPERATOR)
    return Removal("store_files", count, count, note=_BACKUPS)


def _nodes(client: Any) -> Iterator[Any]:
    if not isinstance(client, redis.RedisCluster):
        yield client
        return
    for node in client.get_primaries():
        yield client.get_redis_connection(node)


def _rewrite(client: Any, wait: Callable[[float], None]) -> int:
    """Rewrite one server's files, the log of its commands and its picture, and say how many."""
    count, state = 0, client.info("persistence")
    if state["aof_enabled"]:
        _finish(client, wait, "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        client.execute_command("BGREWRITEAOF")
        _finish(client, wait, "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if client.info("persistence")["aof_last_bgrewrite_status"] != "ok":
            raise redis.ConnectionError("the server could not write its file anew")
        count += 1
    if client.config_get("save").get("save") or state["rdb_last_save_time"] > _started(client):
        _finish(client, wait, "rdb_bgsave_in_progress")
        client.execute_command("BGSAVE", "SCHEDULE")
        _finish(client, wait, "rdb_bgsave_in_progress")
        if client.info("persistence")["rdb_last_bgsave_status"] != "ok":
            raise redis.ConnectionError("the server could not save its picture")
        count += 1
    return count


def _started(client: Any) -> int:
    return int(time.time()) - int(client.info("server")["uptime_in_seconds"]) + 1


def _finish(client: Any, wait: Callable[[float], None], *flags: str) -> None:
    while any(client.info("persistence").get(flag) for flag in flags):
        wait(_LOOK_S)


def _is_not_permitted(error: redis.ResponseError) -> bool:
    text = str(error).upper()
    return isinstance(error, redis.exceptions.NoPermissionError) or "UNKNOWN COMMAND" in text
