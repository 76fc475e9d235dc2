"""Basket affinities: which categories lie in one basket more often than chance.

Belongs here: the answer. The counts are `basket_pairs`'.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.analytics.basket_pairs import GROUPS
from feature_repo.analytics.calendar import name
from feature_repo.analytics.cube import Moment
from feature_repo.analytics.intervals import LEVEL, quantile
from feature_repo.analytics.suppression import K
from feature_repo.errors import InvalidQuestionError

LEAST_BASKETS: Final = 2 * GROUPS
"""Baskets with both categories that a pair must have."""


def affinities(
    moment: Moment, *, months: int, most: int, category: str | None = None
) -> dict[str, Any]:
    """Return the pairs of categories with the highest lift, by the low end of its interval.

    ``lift`` is n(a, b) · n / (n(a) · n(b)) over baskets: 1 where chance alone joins them. Its
    interval, by leaving out one of twenty random groups of users at a time, holds for all pairs
    at once (Bonferroni). Hidden, and counted in ``suppressed``, are pairs behind which fewer
    than `K` people may stand, or whose one category without the other is some, but fewer. How many
    people stand behind a pair is taken from its best month: at least ``users_at_least``.

    Parameters
    ----------
    months
        The last so many whole months.
    most
        At most so many pairs.
    category
        Only pairs with this one.

    Raises
    ------
    InvalidQuestionError
        If ``category`` is not among those counted.
    """
    pairs = moment.cube.pairs
    first, end = moment.whole("month", "purchase", months)
    chosen = [number for number, month in enumerate(pairs.months) if first <= month < end]
    both, baskets = pairs.both[chosen].sum(axis=0), pairs.baskets[chosen].sum(axis=0)
    users = pairs.users[chosen].max(axis=0, initial=0)
    without = pairs.without[chosen].max(axis=0, initial=0)
    lone = pairs.without[chosen].sum(axis=0) > 0
    a, b = np.triu_indices(len(pairs.categories), 1)
    if category is not None:
        if category not in pairs.categories:
            raise InvalidQuestionError(
                "category",
                f"{category[:200]!r} is not among the {len(pairs.categories)} categories (of the "
                "second level) with the most buyers",
            )
        at = pairs.categories.index(category)
        a, b = a[(a == at) | (b == at)], b[(a == at) | (b == at)]
    there = both[:, a, b].sum(axis=0) > 0
    a, b = a[there], b[there]
    hidden = (users[a, b] < K) | (lone[a, b] & (without[a, b] < K))
    hidden |= lone[b, a] & (without[b, a] < K)
    suppressed = int(hidden.sum())
    a, b = a[~hidden], b[~hidden]
    usable = both[:, a, b].sum(axis=0) >= LEAST_BASKETS
    a, b = a[usable], b[usable]
    lift, low, high = _lift(both, baskets, a, b)
    order = np.argsort(-low, kind="stable")[:most]
    counted = both.sum(axis=0)
    return {
        **moment.head(suppressed),
        "period": {"from": name("month", first), "to": name("month", end)},
        "baskets": int(baskets.sum()) if baskets.sum() >= K else None,
        "compared": len(a),
        "pairs": [
            {
                "a": pairs.categories[a[at]],
                "b": pairs.categories[b[at]],
                "baskets": int(counted[a[at], b[at]]),
                "users_at_least": int(users[a[at], b[at]]),
                "share_of_a": round(counted[a[at], b[at]] / counted[a[at], a[at]], 4),
                "share_of_b": round(counted[a[at], b[at]] / counted[b[at], b[at]], 4),
                "lift": round(float(lift[at]), 3),
                "interval": [round(float(low[at]), 3), round(float(high[at]), 3)],
            }
            for at in order
        ],
    }


def _lift(
    both: npt.NDArray[Any], baskets: npt.NDArray[Any], a: npt.NDArray[Any], b: npt.NDArray[Any]
) -> tuple[Any, Any, Any]:
    """Return the lift of each pair and its interval; both (groups, S, S), baskets (groups,)."""
    if not len(a):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    left_out = (both.sum(axis=0) - both)[:, a, b], (baskets.sum() - baskets)[:, None]
    single = np.einsum("gii->gi", both)
    ones = single.sum(axis=0) - single
    logs = (
        np.log(np.maximum(left_out[0], 0.5)) + np.log(left_out[1])
        - np.log(ones[:, a]) - np.log(ones[:, b])
    )  # fmt: skip
    whole = single.sum(axis=0)
    lift = both[:, a, b].sum(axis=0) * baskets.sum() / (whole[a] * whole[b])
    variance = (GROUPS - 1) / GROUPS * ((logs - logs.mean(axis=0)) ** 2).sum(axis=0)
    half = quantile(1 - (1 - LEVEL) / len(a), GROUPS - 1) * np.sqrt(variance)
    return lift, lift * np.exp(-half), lift * np.exp(half)
