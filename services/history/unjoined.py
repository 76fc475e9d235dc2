"""Links that were applied without what the anonymous id had done before: noted until made good.

A note stands in the store before the commit that applies its link, and goes when the user's row
holds the anonymous id's history. So whoever folds again knows which events the row does not count
yet: its version says no more how long the history must be. Not here: who makes them
(`update.linking`), who makes them good (`refolding`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from services.event_log.keys import unjoined_key


def add_unjoined(client: Any, links: Mapping[str, Collection[str]]) -> None:
    """Note anonymous ids by user.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer: then the links must not be applied.
    """
    with translated():
        for user, anonymous in links.items():
            client.sadd(unjoined_key(partition_of(user)), *_names(user, anonymous))


def read_unjoined(client: Any, partition: int) -> dict[str, set[str]]:
    """Return what is noted for a partition's users.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    found: dict[str, set[str]] = defaultdict(set)
    with translated():
        for name in sorted(client.smembers(unjoined_key(partition))):
            user, anonymous = name.decode().split(" ")
            found[user].add(anonymous)
    return dict(found)


def remove_unjoined(client: Any, user: str, anonymous: Collection[str]) -> None:
    """Take notes away: the user's row holds what these anonymous ids did."""
    if anonymous:
        with translated():
            client.srem(unjoined_key(partition_of(user)), *_names(user, anonymous))


def _names(user: str, anonymous: Collection[str]) -> list[str]:
    return [f"{user} {one}" for one in sorted(anonymous)]
