"""Names of categories and brands in fewer bytes, by a fixed list of frequent pieces.

Belongs here: the list and the two conversions. Not here: which names a profile keeps.
"""

from functools import lru_cache


@lru_cache(maxsize=65_536)
def pack_name(name: str) -> bytes:
    """Return a name's bytes; none of them is 0xFF."""
    return b"\xff%b\xff" % name.encode()


@lru_cache(maxsize=65_536)
def unpack_name(packed: bytes) -> str:
    """Return the name that `pack_name` packed."""
    return packed[1:-1].decode()
