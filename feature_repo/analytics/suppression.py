"""Suppression of small cells: no figure is of, or leads to, fewer than `K` people.

Primary suppression hides what fewer than `K` people stand behind, nobody included. Complementary
suppression hides more, until no hidden figure follows from what is shown: `line` for parts of one
total, `tree` for parts of parts, `grid` for rows and columns, `chain` for steps of which each holds
the next. Belongs here: masks. What is counted is the answers' own.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

K: Final = 20
"""Least number of people behind any figure that is shown."""

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]


def few(users: npt.ArrayLike) -> Mask:
    """Say of each figure whether too few people stand behind it."""
    return np.asarray(np.asarray(users) < K, dtype=bool)


def complement_few(users: npt.ArrayLike, of: npt.ArrayLike) -> Mask:
    """Say of each part of a group whether those outside it are too few, and not nobody."""
    rest = np.asarray(of) - np.asarray(users)
    return np.asarray((rest > 0) & (rest < K), dtype=bool)


def line(values: Values, primary: Mask) -> tuple[Mask, bool]:
    """Hide parts of a total that is shown.

    Parameters
    ----------
    values
        Non-negative parts; they add up to the total.
    primary
        Parts that must be hidden.

    Returns
    -------
    tuple[Mask, bool]
        What to hide: of the others the smallest as well, so that what is hidden adds up to
        more than the primary ones; and whether the total may be shown.

    Examples
    --------
    >>> line(np.array([5, 70, 40]), np.array([True, False, False]))
    (array([ True, False,  True]), True)
    """
    hidden = primary.copy()
    if not hidden.any():
        return hidden, True
    return hidden, _hide_smallest(values, hidden)


def tree(
    top: Values, primary_top: Mask, parents: Values, below: Values, primary_below: Mask
) -> tuple[Mask, Mask, bool]:
    """Hide parts of a total, and parts of those parts.

    Parameters
    ----------
    top, primary_top
        Parts of the total; see `line`.
    parents
        For each figure ``below``, the index in ``top`` of what it is a part of.
    below, primary_below
        Parts of the parts.

    Returns
    -------
    tuple[Mask, Mask, bool]
        What to hide above and below, and whether the total may be shown.
    """
    hidden_below, forced = primary_below.copy(), primary_top.copy()
    own = [np.flatnonzero(parents == index) for index in range(len(top))]
    for index, children in enumerate(own):
        if hidden_below[children].any() and not primary_top[index]:
            forced[index] |= not _hide_among(below, hidden_below, children)
    hidden_top, total = line(top, forced)
    for index in np.flatnonzero(hidden_top & ~primary_top).tolist():
        if own[index].size and not hidden_below[own[index]].any():
            _hide_among(below, hidden_below, own[index])
    return hidden_top, hidden_below, total


@dataclass(frozen=True, slots=True)
class Grid:
    """What may be shown of a table.

    Attributes
    ----------
    hidden
        Cells that are not shown.
    rows, columns
        Those whose total is shown. The totals add up the cells where both are, hidden ones too.
    """

    hidden: Mask
    rows: Mask
    columns: Mask

    def totals(self, values: Values) -> tuple[Values, Values]:
        """Return the totals of rows and of columns; of those without one, 0."""
        counted = np.where(self.rows[:, None] & self.columns[None, :], values, 0)
        return counted.sum(axis=1), counted.sum(axis=0)


def grid(values: Values, primary: Mask) -> Grid:
    """Hide cells of a table whose row and column totals are shown.

    A row or column without any cell to show is left out whole, and counts in no total. Every other
    primary cell becomes a corner of a rectangle of hidden cells whose two next corners are not
    primary: adding to one pair of opposite corners what is taken from the other leaves all totals
    as they are, so each of the four may be anything within the smaller of the next corners.

    Parameters
    ----------
    values
        Non-negative, (rows, columns).
    primary
        Cells that must be hidden.
    """
    rows, columns = np.ones(len(values), dtype=bool), np.ones(values.shape[1], dtype=bool)
    while True:
        shown = ~primary & rows[:, None] & columns[None, :]
        left_rows, left_columns = rows & shown.any(axis=1), columns & shown.any(axis=0)
        if (left_rows == rows).all() and (left_columns == columns).all():
            break
        rows, columns = left_rows, left_columns
    hidden = primary.copy()
    corners = np.argwhere(primary & rows[:, None] & columns[None, :]).tolist()
    for row, column in corners:
        other_rows = np.flatnonzero(rows & ~primary[:, column])
        other_columns = np.flatnonzero(columns & ~primary[row])
        cost = np.where(hidden, 0, values + 1)
        costs = (
            cost[row, other_columns][None, :]
            + cost[other_rows, column][:, None]
            + cost[np.ix_(other_rows, other_columns)]
        )
        at = divmod(int(costs.argmin()), costs.shape[1])
        next_row, next_column = other_rows[at[0]], other_columns[at[1]]
        hidden[[row, next_row, next_row], [next_column, column, next_column]] = True
    hidden[~rows, :] = True
    hidden[:, ~columns] = True
    return Grid(hidden, rows, columns)


def chain(counts: Values) -> Mask:
    """Hide steps of a funnel: counts of people, each step's among those of the one before.

    Shown is a step of at least `K` people if those lost since the last step shown are nobody or
    at least `K`.

    Examples
    --------
    >>> chain(np.array([100, 95, 60, 7]))
    array([False,  True, False,  True])
    """
    hidden = np.ones(len(counts), dtype=bool)
    last: int | None = None
    for step, count in enumerate(counts.tolist()):
        lost = 0 if last is None else last - count
        if count >= K and (lost == 0 or lost >= K):
            hidden[step], last = False, count
    return hidden


def _hide_smallest(values: Values, hidden: Mask) -> bool:
    """Hide the smallest positive part that is shown; without one hide all, and return False."""
    if _hide_among(values, hidden, np.arange(len(values))):
        return True
    hidden[:] = True
    return False


def _hide_among(values: Values, hidden: Mask, indices: Values) -> bool:
    """Hide the smallest positive part shown among ``indices``; say whether there is one."""
    free = indices[~hidden[indices] & (values[indices] > 0)]
    if not free.size:
        return False
    hidden[free[values[free].argmin()]] = True
    return True
