"""Links that are being undone: noted until both profiles are right again.

Who is killed in between leaves the note, and whoever goes on finds it. As long as it stands, nobody
but the link script makes the anonymous id that user's: not by entries that are older. Not here: how
a link is undone (`rebuild.unlink`).
"""

from typing import Any

from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from services.event_log.keys import unlinking_key


def add_unlinking(client: Any, user: str, anonymous: str) -> None:
    """Note that a link is being undone.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer: then nothing of it may be undone.
    """
    with translated():
        client.sadd(unlinking_key(partition_of(user)), f"{user} {anonymous}")


def is_unlinking(client: Any, user: str, anonymous: str) -> bool:
    """Say whether a link is being undone, or `StoreUnavailableError`."""
    with translated():
        found = client.sismember(unlinking_key(partition_of(user)), f"{user} {anonymous}")
    return bool(found)


def read_unlinking(client: Any, partitions: int) -> set[tuple[str, str]]:
    """Return users and anonymous ids whose link is being undone, or `StoreUnavailableError`."""
    found = set[tuple[str, str]]()
    with translated():
        for partition in range(partitions):
            for name in client.smembers(unlinking_key(partition)):
                user, anonymous = name.decode().split(" ")
                found.add((user, anonymous))
    return found


def remove_unlinking(client: Any, user: str, anonymous: str) -> None:
    """Take the note away: it is undone."""
    with translated():
        client.srem(unlinking_key(partition_of(user)), f"{user} {anonymous}")
