"""Search ranking: the relevance of found items to a query, blended with the user's own scores.

Of n items to be ranked, with relevance r and the user's scores s, both scaled over the n::

    z(x) = (x − mean x) / deviation of x    (0 where all are alike)
    score = z(r) + w · z(s)

An item without a relevance has the lowest of the others. Who is not known yet gets the order of
the relevance, nothing else. Without any relevance the words of the query are looked for in what
the catalogue says. Belongs here: the blend. Not here: finding items (the shop's search engine).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.recommend.assortment import Assortment
from services.recommend.content import words

WEIGHT: Final = 1.5
"""Of the user's scores, beside the relevance; how it was chosen: docs/recommendations.md."""

Floats = npt.NDArray[np.floating[Any]]


def blend(
    scored: Sequence[tuple[str, float]], relevance: Mapping[str, float], *, known: bool
) -> list[tuple[str, float]]:
    """Return items and scores, best first, equals as they were given.

    Parameters
    ----------
    scored
        Items as they were given, with the user's scores.
    relevance
        By item, higher is better; not empty.
    known
        Whether anything is known of the user.

    Examples
    --------
    >>> blend([("a", 9.0), ("b", 1.0)], {"b": 2.5, "a": 2.0}, known=False)
    [('b', 2.5), ('a', 2.0)]
    """
    lowest = min(relevance.values())
    values = np.array([relevance.get(item, lowest) for item, _ in scored])
    if known:
        values = _scale(values) + WEIGHT * _scale(np.array([score for _, score in scored]))
    order = np.argsort(-values, kind="stable").tolist()
    return [(scored[n][0], float(values[n])) for n in order]


def match_words(items: Assortment, query: str, wanted: Sequence[str]) -> dict[str, float]:
    """Return by item which share of the query's words is in title, category or brand."""
    wanted_words, found = words(query), dict[str, float]()
    for item in wanted:
        row = items.row.get(item)
        if row is None:
            found[item] = 0.0
            continue
        category, brand = (
            items.categories.of[items.category[row]],
            items.brands.of[items.brand[row]],
        )
        told = set(words(" ".join([items.title[row], category, brand])))
        found[item] = sum(word in told for word in wanted_words) / max(len(wanted_words), 1)
    return found


def _scale(values: Floats) -> Floats:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros(len(values))
