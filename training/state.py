"""The learned state of one shopper as bytes.

Layout, little endian::

    2 bytes   format (1)
    1 byte    length of the model version, then the version (ASCII)
    64 bytes  8 float64: the repeat table's scalars
    4·S bytes S float32: convolution inputs, h, c (`EncoderState.flatten`), then e
    48·R      the R rows taken in the repeat table, in slot order
"""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.errors import ModelMismatchError
from training.repeat import ROW, SCALARS, USED

FORMAT: Final = 1
Parts = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.void]]


def pack(
    version: str,
    scalars: npt.NDArray[np.float64],
    floats: npt.NDArray[np.float32],
    rows: npt.NDArray[np.void],
) -> bytes:
    """Return the bytes of one state."""
    name = version.encode()
    return b"".join(
        (struct.pack("<HB", FORMAT, len(name)), name, scalars.tobytes(), floats.tobytes(),
         rows.tobytes())
    )  # fmt: skip


def version_of(state: bytes) -> str:
    """Return the version of the model that made a state.

    Raises
    ------
    ModelMismatchError
        If the bytes are not a state in this format.
    """
    if len(state) < 3 or struct.unpack_from("<H", state)[0] != FORMAT:
        raise ModelMismatchError(
            f"a learned state of {len(state)} bytes is not in format {FORMAT}: re-encode the user"
        )
    return state[3 : 3 + state[2]].decode("ascii", "replace")


def unpack(state: bytes, version: str, floats: int) -> Parts:
    """Return scalars, floats and rows of a state.

    Parameters
    ----------
    version
        Of the model that reads it.
    floats
        How many floats this model keeps.

    Raises
    ------
    ModelMismatchError
        If another model made the state, or bytes are missing: replay the user's events.
    """
    found = version_of(state)
    if found != version:
        raise ModelMismatchError(
            f"a state was made by model {found}, this one is {version}: re-encode the user"
        )
    at = 3 + state[2]
    end = at + 8 * len(SCALARS) + 4 * floats
    if len(state) < end or (len(state) - end) % ROW.itemsize:
        raise ModelMismatchError(f"a learned state has {len(state)} bytes: re-encode the user")
    scalars = np.frombuffer(state, "<f8", len(SCALARS), at)
    values = np.frombuffer(state, "<f4", floats, at + 8 * len(SCALARS))
    rows = np.frombuffer(state, ROW, -1, end)
    if len(rows) != int(scalars[USED]):
        raise ModelMismatchError(
            f"a learned state has {len(rows)} rows for {int(scalars[USED])}: re-encode the user"
        )
    return scalars, values, rows
