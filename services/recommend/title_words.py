"""Rows by the words of their titles: made once for a layout of the items, aside, then kept up.

A word is a run of letters and digits in lower case. Belongs here: finding rows by a word. Not
here: what a word counts for (`content`).
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Rows = npt.NDArray[np.int64]

MOST_CHANGED: Final = 1_000
"""Titles that changed since the layout from which on everything is better laid out anew."""
_CHUNK: Final = 10_000
_WORD: Final = re.compile(r"[^\W_]+")

_thread: Final = ThreadPoolExecutor(1, thread_name_prefix="words")


class TitleWords:
    """Rows by word; to be asked from any thread but the event loop's: it may have to wait.

    Parameters
    ----------
    titles
        Of all rows; may be edited afterwards, which `change` tells.
    """

    def __init__(self, titles: npt.NDArray[np.object_]) -> None:
        self._made = _thread.submit(_index, titles)
        self._changed: dict[int, frozenset[str]] = {}

    @property
    def worn(self) -> bool:
        """Whether many titles changed since."""
        return len(self._changed) > MOST_CHANGED

    def change(self, row: int, title: str) -> None:
        """Take up the title of a row, which may be a new one."""
        self._changed[row] = frozenset(_WORD.findall(title.lower()))

    def rows(self, word: str) -> Rows:
        """Return the rows whose title has a word, ascending."""
        codes, bounds, rows = self._made.result()
        code = codes.get(word)
        found = rows[:0] if code is None else rows[bounds[code] : bounds[code + 1]]
        changed = list(self._changed.items())
        if changed:
            kept = found[~np.isin(found, [row for row, _ in changed])]
            more = [row for row, words in changed if word in words]
            found = np.sort(np.append(kept, np.array(more, np.int64)))
        return found


def _index(titles: npt.NDArray[np.object_]) -> tuple[dict[str, int], Rows, Rows]:
    """Return each word's number; the bounds of its rows; and rows, by word and ascending."""
    parts, owners = list[Any](), list[Rows]()
    for start in range(0, len(titles), _CHUNK):  # between which other threads run
        some = pc.utf8_lower(pa.array(titles[start : start + _CHUNK], pa.string()))
        split = pc.split_pattern_regex(some, pattern=r"[^\pL\pN]+")
        parts.append(pc.list_flatten(split))
        owners.append(start + pc.list_parent_indices(split).to_numpy())
    words = pa.chunked_array(parts, pa.string()).combine_chunks().dictionary_encode()
    number, owner = words.indices.to_numpy(), np.concatenate([*owners, np.zeros(0, np.int64)])
    order = np.argsort(number, kind="stable")
    number, owner = number[order], owner[order]
    new = np.append(True, (number[1:] != number[:-1]) | (owner[1:] != owner[:-1]))[: len(number)]
    number, owner = number[new], owner[new]
    codes = {word: code for code, word in enumerate(words.dictionary.to_pylist())}
    return codes, np.searchsorted(number, np.arange(len(codes) + 1)), owner
