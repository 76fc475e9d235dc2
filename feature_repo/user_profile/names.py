"""Names of categories and brands as bytes: UTF-8 between two 0xFF.

Belongs here: the two conversions. Not here: which names a profile keeps.
"""

from functools import lru_cache
from typing import Final

_KNOWN: Final = dict[str, bytes]()
_MAX_KNOWN: Final = 65_536


def pack_name(name: str) -> bytes:
    """Return a name's bytes; none of them is 0xFF."""
    known = _KNOWN.get(name)
    if known is not None:
        return known
    if len(_KNOWN) >= _MAX_KNOWN:
        _KNOWN.clear()
    packed = _KNOWN[name] = b"\xff%b\xff" % name.encode()
    return packed


@lru_cache(maxsize=65_536)
def unpack_name(packed: bytes) -> str:
    """Return the name that `pack_name` packed."""
    return packed[1:-1].decode()
