"""Related items by the model's channels: how items go along with one another, for similar items.

Belongs here: reading one item's rows. Not here: what they mean to a user (`memory`).
"""

import numpy as np
import numpy.typing as npt

from training.network.model_dir import Model

Floats = npt.NDArray[np.float32]


def related(model: Model, row: int) -> Floats | None:
    """Return what the memories' rows of an item say of every other, 0–1 a type, shape (N,).

    Each type of rows (had together, had after) counts alike, its greatest entry as 1; what
    speaks against an item counts as 0.

    Parameters
    ----------
    row
        Of the vocabulary, from 0.

    Returns
    -------
    array or None
        None if the model has no memory.
    """
    if model.memory is None:
        return None
    out = np.zeros(len(model.vocabulary.items), np.float32)
    for table in model.memory.tables.values():
        begin, end = table.indptr[row], table.indptr[row + 1]
        value = np.maximum(table.value[begin:end], 0.0)
        top = float(value.max(initial=0.0))
        if top > 0:
            out[table.item[begin:end]] += value / top
    return out
