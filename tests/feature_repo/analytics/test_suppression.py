"""Suppression: no hidden figure follows from what is shown: linear programming attacks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.optimize import linprog

from feature_repo.analytics.suppression import K, chain, complement_few, few, grid, line, tree

counts = st.one_of(st.integers(0, 2 * K), st.integers(0, 500))
many = settings(max_examples=150)


def spread(hidden: list[Any], equations: list[tuple[dict[Any, int], float]]) -> dict[Any, float]:
    """Return how much room there is for each hidden figure, given sums that are shown.

    The attacker knows that figures are not negative; totally unimodular systems have whole
    solutions at their ends, so that room among reals is room among counts.
    """
    place = {name: number for number, name in enumerate(hidden)}
    matrix, sums = np.zeros((len(equations), len(hidden))), np.zeros(len(equations))
    for number, (terms, total) in enumerate(equations):
        sums[number] = total
        for name, sign in terms.items():
            matrix[number, place[name]] = sign
    used = matrix.any(axis=1)
    room = {}
    for name in hidden:
        ends = []
        for sign in (1, -1):
            goal = np.zeros(len(hidden))
            goal[place[name]] = sign
            found = linprog(goal, A_eq=matrix[used], b_eq=sums[used], method="highs")
            ends.append(np.inf if found.status == 3 else sign * found.fun)
        room[name] = ends[1] - ends[0] if np.isfinite(ends).all() else np.inf
    return room


@given(npst.arrays(np.int64, st.integers(1, 8), elements=counts))
@many
def test_of_a_line_no_hidden_part_is_determined(values: Any) -> None:
    primary = few(values)
    hidden, total = line(values, primary)
    assert hidden[primary].all()
    if total and hidden.any():
        names = list(np.flatnonzero(hidden))
        room = spread(names, [(dict.fromkeys(names, 1), values[hidden].sum())])
        assert min(room.values()) >= K


@given(npst.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=counts))
@many
def test_of_a_grid_no_hidden_cell_is_determined(values: Any) -> None:
    masked = grid(values, few(values))
    assert masked.hidden[few(values)].all()
    rows, columns = masked.totals(values)
    kept = masked.rows[:, None] & masked.columns[None, :]
    assert masked.hidden[~kept].all()
    names = [tuple(map(int, at)) for at in np.argwhere(masked.hidden & kept)]
    shown = np.where(kept & ~masked.hidden, values, 0)
    equations = [
        ({at: 1 for at in names if at[0] == row}, rows[row] - shown[row].sum())
        for row in np.flatnonzero(masked.rows)
    ]
    equations += [
        ({at: 1 for at in names if at[1] == column}, columns[column] - shown[:, column].sum())
        for column in np.flatnonzero(masked.columns)
    ]
    assert all(total >= K for total in rows[masked.rows])
    assert all(total >= K for total in columns[masked.columns])
    if names:
        assert min(spread(names, equations).values()) >= K


def test_a_grid_without_few_is_shown_whole_and_one_cell_takes_three_with_it() -> None:
    values = np.full((3, 4), 50)
    assert not grid(values, few(values)).hidden.any()
    values[1, 2] = 3
    masked = grid(values, few(values))
    assert masked.hidden.sum() == 4
    assert masked.rows.all()
    assert masked.columns.all()


def test_rows_and_columns_of_few_alone_are_left_out_whole() -> None:
    values = np.array([[5, 6, 7], [40, 50, 3], [60, 70, 4]])
    masked = grid(values, few(values))
    assert list(masked.rows) == [False, True, True]
    assert list(masked.columns) == [True, True, False]
    assert not masked.hidden[1:, :2].any()
    assert [list(each) for each in masked.totals(values)] == [[0, 90, 130], [100, 120, 0]]


@st.composite
def trees(draw: st.DrawFn) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Draw people and money of parts, and of parts of them; a part may hold more beside."""
    users, money = st.integers(0, 60), st.integers(1, 300)
    size = draw(st.integers(1, 4))
    parents, below_users, below_money = [], [], []
    top_users, top_money = [], []
    for place in range(size):
        children = [(draw(users), draw(money)) for _ in range(draw(st.integers(0, 4)))]
        children = [(n, m if n else 0) for n, m in children]
        own = draw(users)
        rest = draw(money) if own else 0
        parents += [place] * len(children)
        below_users += [n for n, _ in children]
        below_money += [m for _, m in children]
        top_users.append(max([own, *(n for n, _ in children)]))
        top_money.append(rest + sum(m for _, m in children))
    array = [np.array(each, dtype=np.int64) for each in
             (top_users, top_money, parents, below_users, below_money)]  # fmt: skip
    return (*array, np.array(top_money).sum())


@given(trees())
@many
def test_of_a_tree_no_hidden_part_is_determined(drawn: Any) -> None:
    top_users, top, parents, below_users, below, total = drawn
    above, under, whole = tree(top, few(top_users), parents, below, few(below_users))
    assert above[few(top_users)].all()
    assert under[few(below_users)].all()
    names: list[Any] = [("top", i) for i in np.flatnonzero(above)]
    names += [("below", i) for i in np.flatnonzero(under)]
    # What a part holds beside its parts is not shown; the attacker may even know how much it is.
    equations: list[Any] = []
    if whole:
        terms = {("top", i): 1 for i in np.flatnonzero(above)}
        equations.append((terms, total - top[~above].sum()))
    for place in range(len(top)):
        children = np.flatnonzero(parents == place)
        if not children.size:
            continue
        terms = {("below", i): 1 for i in children if under[i]}
        rest = top[place] - below[children].sum()
        sums = -rest - below[[i for i in children if not under[i]]].sum()
        if above[place]:
            terms["top", place] = -1
        else:
            sums += top[place]
        equations.append((terms, sums))
    if names:
        room = spread(names, equations)
        # A lone part of no money in a part of no money beside hides nothing: there is nothing.
        assert all(room[name] > 0 for name in names if _value(name, top, below) > 0)


def _value(name: Any, top: Any, below: Any) -> int:
    return int((top if name[0] == "top" else below)[name[1]])


@given(st.lists(counts, min_size=2, max_size=8).map(lambda c: np.array(sorted(c, reverse=True))))
@many
def test_between_shown_steps_of_a_chain_are_none_or_many(steps: Any) -> None:
    hidden = chain(steps)
    assert (steps[~hidden] >= K).all()
    lost = -np.diff(steps[~hidden])
    assert ((lost == 0) | (lost >= K)).all()
    shown = [None if masked else int(n) for n, masked in zip(steps, hidden, strict=True)]
    for step in np.flatnonzero(hidden):
        above = next((n for n in shown[:step][::-1] if n is not None), None)
        below = next((n for n in shown[step + 1 :] if n is not None), 0)
        assert above is None or above - below >= K


@pytest.mark.parametrize(("part", "hidden"), [(100, False), (81, True), (80, False), (99, True)])
def test_few_outside_a_part_count_too(part: int, hidden: bool) -> None:
    assert bool(complement_few(part, 100)) is hidden
