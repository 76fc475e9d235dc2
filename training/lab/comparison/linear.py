"""Peers that add up: counts and item-item rows over faded histories.

Each peer yields its settings, best guess first. What does not depend on a setting is made once.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import numpy as np

from training.lab.comparison.histories import Fade, baskets, faded, training_requests
from training.lab.comparison.peer import Trial, constant, own, rows, summed, unseeded
from training.lab.comparison.shop import Shop
from training.neighbours import item_rows

MAX_DENSE_ITEMS: Final = 15_000


def popularity(shop: Shop) -> Iterator[Trial]:
    """Count of target lines, over all time or halved every so many days."""
    for days in (float("inf"), 112.0, 56.0, 28.0, 14.0, 7.0, 3.0, 1.0):
        yield {"half_life_days": _plain(days)}, unseeded(constant, _popular(shop, days))


def frequency(shop: Shop) -> Iterator[Trial]:
    """How often the user had an item, faded; ties by popularity."""
    floor = _popular(shop, 112.0)
    ties = constant(1e-3 * floor / max(float(floor.max(initial=0.0)), 1e-9))
    fades = [Fade(per_event=g) for g in (0.95, 0.9, 0.97, 0.8, 0.98, 0.99, 1.0, 0.6)]
    fades += [Fade(half_life_days=d) for d in (112.0, 56.0, 28.0, 7.0, 1.0)]
    for fade in fades:
        setting = {"per_event": fade.per_event, "half_life_days": _plain(fade.half_life_days)}
        yield setting, unseeded(summed, own(shop, fade), ties, 1.0)


def item_knn(shop: Shop) -> Iterator[Trial]:
    """Cosine neighbours of what the user had, faded (Sarwar et al., WWW 2001)."""
    x = _interactions(shop)
    for shrink, keep in product((10.0, 50.0, 0.0), (200, 50, 1000)):
        near = item_rows.top(item_rows.cosine(x, shrink), keep)
        for gamma in (0.95, 0.9, 0.8, 0.98, 0.6, 1.0):
            setting = {"shrink": shrink, "neighbours": keep, "per_event": gamma}
            yield setting, unseeded(rows, shop, near, Fade(per_event=gamma))


def ease(shop: Shop) -> Iterator[Trial]:
    """EASE over the faded history (Steck, WWW 2019)."""
    x = _interactions(shop)
    for ridge in (500.0, 200.0, 1000.0, 100.0, 50.0, 2000.0):
        fitted = item_rows.ease(x, ridge)
        for gamma in (0.95, 0.9, 0.8, 0.98, 0.6, 1.0):
            setting = {"ridge": ridge, "per_event": gamma}
            yield setting, unseeded(rows, shop, fitted, Fade(per_event=gamma))


def transitions(shop: Shop) -> Iterator[Trial]:
    """Follow what came after what the user had, faded."""
    after = _after(shop)
    for gamma in (0.8, 0.9, 0.6, 0.95, 0.98, 0.4):
        yield {"per_event": gamma}, unseeded(rows, shop, after, Fade(per_event=gamma))


def ease_transitions(shop: Shop) -> Iterator[Trial]:
    """EASE and transitions added up, each faded in its own way."""
    x, after = _interactions(shop), _after(shop)
    for ridge in (500.0, 200.0, 1000.0):
        fitted = item_rows.ease(x, ridge)
        for gamma, other, share in product((0.9, 0.8, 0.95), (0.8, 0.6), (1.0, 0.3, 3.0, 10.0)):
            setting = {
                "ridge": ridge, "per_event": gamma, "transitions_per_event": other,
                "transitions_share": share,
            }  # fmt: skip
            together = rows(shop, fitted, Fade(per_event=gamma))
            following = rows(shop, after, Fade(per_event=other))
            yield setting, unseeded(summed, together, following, share)


def ridge_baskets(shop: Shop) -> Iterator[Trial]:
    """Ridge regression of the next basket on the faded history, plus faded counts."""
    asked = training_requests(shop)
    y = baskets(shop, asked)
    for gamma in (0.9, 0.95, 0.8):
        h = faded(shop, asked, Fade(per_event=gamma))
        gram, right = (h.T @ h).toarray().astype(np.float64), (h.T @ y).toarray()
        for ridge in (100.0, 1000.0, 20.0):
            weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), right).astype(np.float32)
            predicted = rows(shop, weights, Fade(per_event=gamma))
            for count_gamma, share in product((0.95, 0.9), (0.25, 0.1, 0.5)):
                setting = {
                    "per_event": gamma, "ridge": ridge, "count_per_event": count_gamma,
                    "count_share": share,
                }  # fmt: skip
                counted = own(shop, Fade(per_event=count_gamma))
                yield setting, unseeded(summed, predicted, counted, share)


def _interactions(shop: Shop) -> Any:
    return item_rows.interactions(shop.histories, shop.trained, shop.items)


def _after(shop: Shop) -> Any:
    return item_rows.transitions(shop.histories, shop.trained, shop.items)


def _popular(shop: Shop, half_life_days: float) -> Any:
    return item_rows.recent_popularity(
        shop.histories, shop.items, until_ms=shop.split.train_until_ms,
        half_life_days=half_life_days,
    )  # fmt: skip


def _plain(days: float) -> float | None:
    return days if np.isfinite(days) else None
