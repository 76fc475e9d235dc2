"""Model switch: which model a partition follows, and telling it to follow another.

The log itself says it: from an entry with field ``m`` on, users who have no row yet begin with
that model. The commit that passes it notes it beside the cursor.
"""

from collections.abc import Iterable
from typing import Any, Final

from feature_repo.online.connection import translated
from services.event_log.keys import cursor_key, log_key

_PAGE: Final = 1000


def find_model(client: Any, partition: int) -> str:
    """Return the version of the model that a partition's new users begin with, now or soon.

    Empty without a model, or if nobody has said yet.
    """
    with translated():
        found = client.hmget(cursor_key(partition), "cursor", "model")
        after, end = b"(" + (found[0] or b"0-0"), b"+"
        while page := client.xrevrange(log_key(partition), end, after, count=_PAGE):
            for _, fields in page:
                if b"m" in fields:
                    return str(fields[b"m"].decode())
            end = b"(" + page[-1][0]
    return str((found[1] or b"").decode())


def switch_model(client: Any, partitions: Iterable[int], version: str) -> list[int]:
    """Append a model switch to the log of every partition that follows another model.

    Parameters
    ----------
    version
        Model version; empty for none.

    Returns
    -------
    list[int]
        The partitions told.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer; the same call can be repeated.
    """
    told = [partition for partition in partitions if find_model(client, partition) != version]
    for partition in told:
        with translated():
            client.xadd(log_key(partition), {"m": version})
    return told
