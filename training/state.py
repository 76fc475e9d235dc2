"""The learned state of shoppers: as arrays while a batch is worked on, as bytes at rest.

Layout, little endian::

    13 bytes  format, digest of the model's version, rows R, groups G, rows touched again M,
              and bytes per distance of a group (1 or 4)
    35 bytes  the repeat table's scalars
    14 bytes  times of the last 7 events: (gap bucket · 24 + hour) · 7 + weekday + 1; 0: none
    4·S bytes S float32: what the encoder carries, then h and c
    7·G or 10·G  per group: positive events and seconds to the next group (of the last group:
              to now), its rows less one, the weight of those of its rows touched once
    2·R or 4·R   items (4 bytes if the vocabulary is that large), then a bit each: touched again
    9·M       counts (float16), first days, five codes in `training.repeat.STEPS`

A group is the rows last touched by one event; groups and rows stand oldest first, rows of a
group by item, so equal states have equal bytes. Whole batches are packed and read at once.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.errors import ModelMismatchError
from training.encoder import WINDOW
from training.model_dir import Model
from training.repeat import EVENTS, LAST_MS, ROW, STEPS, RepeatTables, codes
from training.vocabulary import POSITIVE

FORMAT: Final = 2
WEIGHTS: Final = np.array([0.0, *sorted(set(POSITIVE.values()))], np.float32)
"""Weights that an event gives its items, by their code."""

_HEAD: Final = struct.Struct("<HIHHHB")
_SCALARS: Final = struct.Struct("<IIHBqqq")
_GROUP: Final = {
    width: np.dtype(
        [("events", f"<u{width}"), ("seconds", "<u4"), ("rows", "u1"), ("weight", "u1")]
    )
    for width in (1, 4)
}
Ints = npt.NDArray[np.int64]


def digest(version: str) -> int:
    """Return the 32 bits by which a state names its model."""
    return zlib.crc32(version.encode())


@dataclass(frozen=True)
class Layout:
    """What of a state depends on the model.

    Attributes
    ----------
    version
        Of the model.
    capacity
        Rows of a repeat table.
    floats
        S: floats that the encoder carries, h and c included.
    items
        Size of the vocabulary.
    """

    version: str
    capacity: int
    floats: int
    items: int

    @classmethod
    def of(cls, model: Model) -> "Layout":
        """Return the layout of a model's states."""
        encoder = model.network.encoder
        floats = encoder.carried + 2 * encoder.hidden
        return cls(model.version, model.config.capacity, floats, len(model.vocabulary.items))

    @property
    def item(self) -> np.dtype[Any]:
        """Type in which an item is kept."""
        return np.dtype("<u2" if self.items < 1 << 16 else "<u4")


class LearnedStates:
    """States of several shoppers as arrays.

    Parameters
    ----------
    users
        Number of shoppers, at most 2,048; all begin before their first event.
    layout
        What the model makes of a state.

    Attributes
    ----------
    tables
        The repeat tables and their scalars.
    window
        Codes of the last events' times, oldest first, shape (B, 7).
    floats
        What the encoder carries, then h and c, shape (B, S).
    """

    def __init__(self, users: int, layout: "Layout") -> None:
        self._layout = layout
        self.tables = RepeatTables(users, layout.capacity)
        self.window = np.zeros((users, WINDOW), np.uint16)
        self.floats = np.zeros((users, layout.floats), np.float32)

    def load(self, states: Sequence[bytes | None]) -> None:
        """Put packed states into place; None stays before the first event.

        Raises
        ------
        ModelMismatchError
            If another model made a state, or it is cut or damaged: replay the user's events.
        """
        try:
            self._load(states)
        except (ValueError, IndexError) as error:
            raise ModelMismatchError("a learned state is damaged: re-encode the user") from error

    def _load(self, states: Sequence[bytes | None]) -> None:
        parts = [
            _split(user, state, self._layout) for user, state in enumerate(states)
            if state is not None
        ]  # fmt: skip
        if not parts:
            return
        users = np.array([part.user for part in parts])
        scalars = self.tables.scalars
        scalars[users] = [part.scalars for part in parts]
        self.window[users] = np.frombuffer(b"".join(p.window for p in parts), "<u2").reshape(
            -1, WINDOW
        )
        self.floats[users] = np.frombuffer(b"".join(p.floats for p in parts), "<f4").reshape(
            len(parts), -1
        )
        wide = b"".join(part.groups.astype(_GROUP[4]).tobytes() for part in parts)
        groups = np.frombuffer(wide, _GROUP[4])
        if len(groups):
            owner = np.repeat(users, [len(part.groups) for part in parts])
            self._place(parts, groups, owner)

    def _place(self, parts: "list[_Parts]", groups: npt.NDArray[np.void], owner: Ints) -> None:
        scalars, sizes = self.tables.scalars, groups["rows"].astype(np.int64) + 1
        events = scalars[owner, EVENTS].astype(np.int64) - _to_now(groups["events"], owner)
        seconds = scalars[owner, LAST_MS].astype(np.int64) // 1000
        seconds -= _to_now(groups["seconds"], owner)
        rows = np.zeros(int(sizes.sum()), ROW)
        rows["item"] = np.frombuffer(b"".join(p.items for p in parts), self._layout.item)
        touched = np.concatenate(
            [np.unpackbits(np.frombuffer(p.again, "u1"), count=p.rows) for p in parts]
        ).astype(np.bool_)
        rows["again"] = touched
        rows["last_event"] = np.repeat(events, sizes)
        rows["last_s"] = np.repeat(seconds, sizes)
        rows["first_day"] = rows["last_s"] // 86_400
        rows["counts"] = np.repeat(WEIGHTS[groups["weight"]], sizes)[:, None]
        counts = np.empty((int(touched.sum()), 6), np.float32)
        counts[:, 0] = np.frombuffer(b"".join(p.counts for p in parts), "<f2")
        counts[:, 1:] = STEPS[np.frombuffer(b"".join(p.codes for p in parts), "u1")].reshape(-1, 5)
        rows["counts"][touched] = counts
        rows["first_day"][touched] = np.frombuffer(b"".join(p.days for p in parts), "<u2")
        self.tables.load(np.repeat(owner, sizes), rows)

    def pack(self) -> list[bytes]:
        """Return every state as bytes."""
        tables, layout = self.tables, self._layout
        found = tables.snapshot(np.arange(len(tables.scalars)))
        rows, owner = found.rows, found.owner
        order = np.argsort(owner << 52 | rows["last_event"].astype(np.int64) << 24 | rows["item"])
        rows, owner = rows[order], owner[order]
        users = np.arange(len(tables.scalars) + 1)
        groups, group_owner = _groups(rows, owner, tables.scalars)
        row_ends, group_ends = np.searchsorted(owner, users), np.searchsorted(group_owner, users)
        touched = rows["again"] > 0
        again = rows[touched]
        again_ends = np.concatenate([[0], np.cumsum(touched)])[row_ends]
        bits = np.zeros((len(users) - 1, tables.capacity), np.bool_)
        bits[owner, np.arange(len(rows)) - row_ends[owner]] = touched
        packed_bits = np.packbits(bits, axis=1)
        items = rows["item"].astype(layout.item).tobytes()
        counts = again["counts"][:, 0].astype("<f2").tobytes()
        days, code = again["first_day"].astype("<u2").tobytes(), codes(again["counts"][:, 1:])
        steps, name, out = code.tobytes(), digest(layout.version), list[bytes]()
        bounds = zip(
            pairwise(row_ends.tolist()), pairwise(group_ends.tolist()),
            pairwise(again_ends.tolist()), strict=True,
        )  # fmt: skip
        size, whole = layout.item.itemsize, tables.scalars.astype(np.int64).tolist()
        for user, ((r, r_end), (g, g_end), (m, m_end)) in enumerate(bounds):
            own = groups[g:g_end]
            width = 4 if g_end > g and own["events"].max() > 255 else 1
            events, known, sizes, last_size, first, last, gap, _ = whole[user]
            out.append(
                _HEAD.pack(FORMAT, name, r_end - r, g_end - g, m_end - m, width)
                + _SCALARS.pack(
                    min(events, 2**32 - 1),
                    min(sizes, 2**32 - 1),
                    last_size,
                    known,
                    first,
                    last,
                    gap,
                )
                + self.window[user].tobytes()
                + self.floats[user].tobytes()
                + own.astype(_GROUP[width]).tobytes()
                + items[size * r : size * r_end]
                + packed_bits[user, : -(-(r_end - r) // 8)].tobytes()
                + counts[2 * m : 2 * m_end]
                + days[2 * m : 2 * m_end]
                + steps[5 * m : 5 * m_end]
            )
        return out


@dataclass(frozen=True)
class _Parts:
    """One packed state, cut where its parts begin."""

    user: int
    rows: int
    scalars: tuple[int, ...]
    window: bytes
    floats: bytes
    groups: npt.NDArray[np.void]
    items: bytes
    again: bytes
    counts: bytes
    days: bytes
    codes: bytes


def _split(user: int, state: bytes, layout: Layout) -> _Parts:
    if len(state) < _HEAD.size + _SCALARS.size:
        raise _damaged(state)
    form, made_by, rows, groups, again, width = _HEAD.unpack_from(state)
    if form != FORMAT or width not in _GROUP:
        raise _damaged(state)
    if made_by != digest(layout.version):
        raise ModelMismatchError(
            f"a state was made by another model than {layout.version}: re-encode the user"
        )
    events, sizes, size, known, first, last, gap = _SCALARS.unpack_from(state, _HEAD.size)
    lengths = (
        2 * WINDOW, 4 * layout.floats, _GROUP[width].itemsize * groups,
        layout.item.itemsize * rows, -(-rows // 8), 2 * again, 2 * again, 5 * again,
    )  # fmt: skip
    at, cut = _HEAD.size + _SCALARS.size, list[bytes]()
    for length in lengths:
        cut.append(state[at : at + length])
        at += length
    found = np.frombuffer(cut[2], _GROUP[width]) if len(cut[2]) == lengths[2] else None
    if at != len(state) or found is None or rows > layout.capacity:
        raise _damaged(state)
    if int(found["rows"].sum(dtype=np.int64)) + groups != rows:
        raise _damaged(state)
    return _Parts(
        user, rows, (events, known, sizes, size, first, last, gap, rows), cut[0], cut[1], found,
        *cut[3:],
    )  # fmt: skip


def _damaged(state: bytes) -> ModelMismatchError:
    return ModelMismatchError(
        f"a learned state of {len(state)} bytes is damaged or not of format {FORMAT}: "
        "re-encode the user"
    )


def _groups(
    rows: npt.NDArray[np.void], owner: Ints, scalars: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.void], Ints]:
    """Return the groups of sorted rows, and whose they are."""
    if not len(rows):
        return np.zeros(0, _GROUP[4]), owner
    event = rows["last_event"]
    new = np.concatenate([[True], (event[1:] != event[:-1]) | (owner[1:] != owner[:-1])])
    begin = np.flatnonzero(new)
    whose, out = owner[begin], np.zeros(len(begin), _GROUP[4])
    final = np.concatenate([whose[1:] != whose[:-1], [True]])
    now = scalars[whose]
    for name, value, end in (
        ("events", event[begin], now[:, EVENTS]),
        ("seconds", rows["last_s"][begin], now[:, LAST_MS] // 1000),
    ):
        following = np.concatenate([value[1:], value[:1]])
        out[name] = np.where(final, end, following) - value
    out["rows"] = np.concatenate([begin[1:], [len(rows)]]) - begin - 1
    once = np.where(rows["again"] > 0, 0.0, rows["counts"][:, 0])
    out["weight"] = np.searchsorted(WEIGHTS, np.maximum.reduceat(once, begin).astype(np.float32))
    return out, whose


def _to_now(steps: npt.NDArray[Any], owner: Ints) -> Ints:
    """Return how far back each group lies, from the distance of each to the next of its owner."""
    left = np.cumsum(steps[::-1], dtype=np.int64)[::-1]
    final = np.concatenate([owner[1:] != owner[:-1], [True]])
    after = np.concatenate([left[1:], [0]])[final]
    counts = np.diff(np.flatnonzero(np.concatenate([[True], final])))
    back: Ints = left - np.repeat(after, counts)
    return back
