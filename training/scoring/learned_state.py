"""The learned state of users: as arrays while a batch is worked on, as bytes at rest.

Layout, little endian::

    13 bytes  format, digest of the model's version, rows R, groups G, rows touched again M,
              and bytes per distance of a group (1 or 4)
    35 bytes  the repeat table's scalars
    3·K bytes what the encoder carries, fixed point
    3·H bytes h, fixed point; 3·H bytes c, a float of 16 bits of mantissa
    7·G or 10·G  per group: positive events and seconds to the next group (of the last group:
              to now), its rows less one, the weight of those of its rows touched once
    2·R or 4·R   items (4 bytes if the vocabulary is that large), then a bit each: touched again
    9·M       counts (float16), first days, five codes in `training.state.item_table.STEPS`

A group is the rows last touched by one event; groups and rows stand oldest first, rows of a
group by item, so equal states have equal bytes. Whole batches are packed and read at once.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from feature_repo.errors import ModelMismatchError
from training.network.model_dir import Model
from training.state.codec import FORMAT, OTHER_MODEL, Shape, read_states
from training.state.item_table import RepeatTables


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
    carried
        K: floats that the encoder keeps beside h and c.
    hidden
        H: units of the LSTM.
    items
        Size of the vocabulary.
    """

    version: str
    capacity: int
    carried: int
    hidden: int
    items: int

    @classmethod
    def of(cls, model: Model) -> "Layout":
        """Return the layout of a model's states."""
        encoder = model.network.encoder
        return cls(
            model.version, model.config.capacity, encoder.carried, encoder.hidden,
            len(model.vocabulary.items),
        )  # fmt: skip

    @property
    def shape(self) -> Shape:
        """The same for compiled code."""
        return Shape(
            digest(self.version), self.capacity, self.carried, self.hidden, self.items,
            2 if self.items < 1 << 16 else 4,
        )  # fmt: skip

    @property
    def floats(self) -> int:
        """Floats of a state: K, then h and c."""
        return self.carried + 2 * self.hidden


class LearnedStates:
    """States of several users as arrays.

    Parameters
    ----------
    users
        Number of users; all begin before their first event.
    layout
        What the model makes of a state.

    Attributes
    ----------
    tables
        The repeat tables and their scalars.
    floats
        What the encoder carries, then h and c, shape (B, K + 2H).
    """

    def __init__(self, users: int, layout: Layout) -> None:
        self._layout = layout
        self._shape = layout.shape
        self.tables = RepeatTables(users, layout.capacity)
        self.floats = np.zeros((users, layout.floats), np.float32)

    def load(self, states: Sequence[bytes | None]) -> None:
        """Put packed states into place; None stays before the first event.

        Raises
        ------
        ModelMismatchError
            If another model made a state, or it is cut or damaged: replay the user's events.
        """
        data, starts = lay_end_to_end(states)
        user, fault = read_states(
            data, starts, self._shape, self.tables.scalars, self.floats,
            self.tables.rows,
        )  # fmt: skip
        if fault:
            raise refusal(fault, states[user], self._layout)


def lay_end_to_end(
    states: Sequence[bytes | None],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return states laid end to end and where each begins; None takes no bytes.

    Raises
    ------
    ModelMismatchError
        If a state is empty.
    """
    if b"" in states:
        raise _refuse_damaged(b"")
    starts, at = [0], 0
    for state in states:
        at += 0 if state is None else len(state)
        starts.append(at)
    data = b"".join([state for state in states if state is not None])
    return np.frombuffer(data, np.uint8), np.array(starts, np.int64)


def cut_apart(out: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[bytes]:
    """Return the states that compiled code laid end to end."""
    bounds = [0, *ends.tolist()]
    whole = out[: bounds[-1]].tobytes()
    return [whole[begin:end] for begin, end in pairwise(bounds)]


def refusal(fault: int, state: bytes | None, layout: Layout) -> ModelMismatchError:
    """Return the error for a fault that compiled code found in ``state``."""
    if fault == OTHER_MODEL:
        return ModelMismatchError(
            f"a state was made by another model than {layout.version}: re-encode the user"
        )
    return _refuse_damaged(state or b"")


def _refuse_damaged(state: bytes) -> ModelMismatchError:
    return ModelMismatchError(
        f"a learned state of {len(state)} bytes is damaged or not of format {FORMAT}: "
        "re-encode the user"
    )
