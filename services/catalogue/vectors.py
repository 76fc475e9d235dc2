"""Vectors of items: what an item is about, as the shop or a text model puts it into numbers.

The store keeps them beside the items, as they were given (`KEY`: item id to float32, little
endian); a gateway keeps them at length 1, two bytes a number (the upper half of a float32), in
blocks that are never moved. All have as many numbers as the first one. Belongs here: keeping
vectors, and how alike they are.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InvalidInputError

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.int64]
_Halves = npt.NDArray[np.uint16]

KEY: Final = "portrait:catalogue:vectors"
NONE: Final = -1
"""Row of an item without a vector."""
_BLOCK: Final = 1024
_REST: Final = 1024
"""Rows that were given up rest until so many others were: somebody may be reading them."""
_STORE: Final = """
local any = redis.call('HRANDFIELD', KEYS[1])
local size = any and redis.call('HSTRLEN', KEYS[1], any) or #ARGV[2]
for n = 2, #ARGV, 2 do
  if #ARGV[n] ~= size then return {size, #ARGV[n]} end
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return {}
"""
"""KEYS: the vectors. ARGV: id, vector, and so on. Answers with the size that they have and the
first other one, in bytes, where nothing was stored."""


class Vectors:
    """A gateway's copy; rows stay what they are, an item whose vector changes gets another.

    Attributes
    ----------
    row
        Row of each item that has a vector.
    length
        Numbers in each vector; 0 while there is none.
    """

    def __init__(self) -> None:
        self.row: dict[str, int] = {}
        self.length = 0
        self._blocks = list[_Halves]()
        self._free = deque[int]()
        self._used = 0

    def take(self, given: Mapping[str, bytes | None]) -> None:
        """Take vectors up as the store holds them; None: the item has none."""
        for item in given:
            if (row := self.row.pop(item, None)) is not None:
                self._free.append(row)
        there = {item: data for item, data in given.items() if data}
        if not there:
            return
        sizes = {len(data) // 4 for data in there.values()}
        if sizes != {self.length}:  # the store holds one length only: the others are gone
            self.row, self._blocks, self._free, self._used = {}, [], deque(), 0
            self.length = max(sizes)
            there = {i: data for i, data in there.items() if len(data) // 4 == self.length}
        given_numbers = np.frombuffer(b"".join(there.values()), "<f4").reshape(-1, self.length)
        for item, vector in zip(there, _halve(unit(given_numbers)), strict=True):
            row = self.row[item] = self._next_row()
            self._blocks[row // _BLOCK][row % _BLOCK] = vector

    def copy_from(self, other: "Vectors", items: set[str]) -> None:
        """Take some items' vectors from another copy, which has them newer."""
        for item in items:
            row = other.row.get(item, NONE)
            self.take({item: None if row == NONE else other.at(row).tobytes()})

    def at(self, row: int) -> npt.NDArray[np.float32]:
        """Return the vector of a row, of length 1 or all zeros; zeros for `NONE`."""
        if row == NONE:
            return np.zeros(self.length, np.float32)
        return _double(self._blocks[row // _BLOCK][row % _BLOCK])

    def rows(self, items: Sequence[str]) -> Rows:
        """Return the row of each item, `NONE` where it has no vector."""
        row = self.row
        return np.fromiter((row.get(item, NONE) for item in items), np.int64, len(items))

    def gather(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the vectors of some rows, shape (len(rows), length)."""
        if not len(rows):
            return np.zeros((0, self.length), np.float32)
        return np.stack([self.at(row) for row in rows.tolist()])

    def cosines(self, vector: Floats, rows: Rows) -> Floats:
        """Return how alike ``vector`` (of length 1) and each row's are, −1 to 1; 0 for `NONE`.

        May take long, and be called from any thread.
        """
        wanted = vector.astype(np.float32)
        blocks = [_double(block) @ wanted for block in self._blocks[:]]
        every = np.concatenate([*blocks, np.zeros(1, np.float32)])  # the last is `NONE`'s
        out: Floats = every[rows]
        return out

    def _next_row(self) -> int:
        if len(self._free) > _REST:
            return self._free.popleft()
        if self._used == len(self._blocks) * _BLOCK:
            self._blocks.append(np.zeros((_BLOCK, self.length), np.uint16))
        self._used += 1
        return self._used - 1


def unit(vectors: Floats) -> npt.NDArray[np.float64]:
    """Return vectors (rows) at length 1; zeros stay."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    out: npt.NDArray[np.float64] = wide / np.where(norms > 0, norms, 1)
    return out


def _halve(numbers: npt.NDArray[np.float64]) -> _Halves:
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)


def _double(halves: _Halves) -> npt.NDArray[np.float32]:
    out: npt.NDArray[np.float32] = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return out


async def find_length(client: Any) -> int | None:
    """Return how many numbers the store's vectors have, None if there are none."""
    some = await client.hrandfield(KEY)
    size = 0 if some is None else await client.hstrlen(KEY, some)
    return size // 4 or None


async def store(client: Any, vectors: Mapping[str, bytes]) -> None:
    """Store vectors of one length, that of those stored already.

    Raises
    ------
    InvalidInputError
        If one has another length; then none is stored.
    """
    pairs = [part for pair in vectors.items() for part in pair]
    if refused := await client.eval(_STORE, 1, KEY, *pairs):
        raise InvalidInputError(other_length(refused[1] // 4, refused[0] // 4))


def other_length(length: int, expected: int) -> str:
    """Return why a vector is refused."""
    return (
        f"the vector has {length} numbers, those of the catalogue have {expected}: "
        "send that many, or take all vectors away first"
    )
