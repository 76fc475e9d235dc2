"""Batch-view rows in the store: each written whole, and never over a newer one.

Belongs here: the one script that writes them, and how many it takes at a time. The bytes are
made elsewhere: `feast_stores.materialize_engine` for columns, `feast_stores.online` for what Feast
hands over row by row.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any, Final

import msgpack
import redis
from redis.crc import key_slot

from feature_repo.online.connection import translated
from feature_repo.online.lua import Call, Script

_ROWS_A_TRIP: Final = 1_000
_ROWS_A_CALL: Final = 16
"""More cost the server more a row: it keeps all that a call wrote until the call ends."""
_WRITERS: Final = 2
"""Connections: while one's rows are under way, the other's are being written."""
_PENDING: Final = 10
"""Parts that may wait while more rows are made."""
_FIELDS_A_COMMAND: Final = 50
_TEXT: Final = Template((Path(__file__).parent / "newer.lua").read_text())


def write(client: Any, names: Sequence[bytes], keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
    """Write rows that are not older than the stored ones.

    Comparing and writing one row is one step, whoever else writes. Repeating a call that
    failed is safe.

    Parameters
    ----------
    names
        Hash fields: that of the time, then those of the values.
    keys
        Redis keys of the rows. Where one comes twice, the newest of its rows stays; of two of
        equal time, the last.
    rows
        For each key a MessagePack array: its time as a protobuf ``Timestamp``, then values.

    Returns
    -------
    int
        Rows written; the others were older than what was there.

    Raises
    ------
    redis.RedisError, OSError
        If the store fails; some rows may then be written.
    """
    script, written = _script(tuple(names)), 0
    for start in range(0, len(keys), _ROWS_A_TRIP):
        at = slice(start, start + _ROWS_A_TRIP)
        for answer in script.run_all(client, list(_calls(client, keys[at], rows[at]))):
            if isinstance(answer, Exception):
                raise answer
            written += answer
    return written


def write_all(
    client: Any, names: Sequence[bytes], made: Iterable[tuple[Sequence[bytes], Sequence[bytes]]]
) -> Iterator[int]:
    """Write keys and rows while the next are made; see `write`.

    Parameters
    ----------
    made
        Keys and rows, as many at a time as come.

    Yields
    ------
    int
        Rows that are done, after each part.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer in time. What `made` gives again may be written again.
    """

    def part(keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        with translated():
            write(client, names, keys, rows)
        return len(keys)

    pending = deque[Future[int]]()
    with ThreadPoolExecutor(_WRITERS) as pool:
        for keys, rows in made:
            for start in range(0, len(keys), _ROWS_A_TRIP):
                at = slice(start, start + _ROWS_A_TRIP)
                pending.append(pool.submit(part, keys[at], rows[at]))
            while len(pending) > _PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def pack_values(values: Iterable[bytes]) -> bytes:
    """Return a MessagePack array of byte strings, in the form that the script reads."""
    made: bytes = msgpack.packb(list(values), use_bin_type=False)
    return made


@lru_cache(maxsize=256)
def _script(names: tuple[bytes, ...]) -> Script:
    """Return the script that writes rows of these fields."""
    said = [_literal(name) for name in names]
    writes = []
    for start in range(0, len(said), _FIELDS_A_COMMAND):
        chosen = range(start, min(start + _FIELDS_A_COMMAND, len(said)))
        pairs = ", ".join(f"{said[n]}, row[{n + 1}]" for n in chosen)
        writes.append(f"call('HSET', key, {pairs})")
    return Script(_TEXT.substitute(time=said[0], write="\n    ".join(writes)))


def _literal(name: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in name) + '"'


def _calls(client: Any, keys: Sequence[bytes], rows: Sequence[bytes]) -> Iterator[Call]:
    for indices in _together(client, keys):
        for start in range(0, len(indices), _ROWS_A_CALL):
            chosen = indices[start : start + _ROWS_A_CALL]
            yield [keys[n] for n in chosen], [rows[n] for n in chosen]


def _together(client: Any, keys: Sequence[bytes]) -> list[Sequence[int]]:
    """Return the indices of keys that one call may name: on a cluster, those of one slot."""
    if not isinstance(client, redis.RedisCluster):
        return [range(len(keys))]
    slots = defaultdict[int, list[int]](list)
    for index, key in enumerate(keys):
        slots[key_slot(key)].append(index)
    return list(slots.values())
