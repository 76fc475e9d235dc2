"""Peers that add up: counts, item-item rows and factors over faded histories.

Each peer is a function that yields its settings, best guess first; a setting gives a function
of a seed that gives the scores of requests. What does not depend on a setting is made once.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from training import item_rows
from training.baselines import Window, recent_popularity
from training.compare.histories import Fade, baskets, faded
from training.compare.measure import Score
from training.compare.shop import Shop

MAX_DENSE_ITEMS: Final = 15_000
Setting = Mapping[str, Any]
Trial = tuple[Setting, Callable[[int], Score]]


def popularity(shop: Shop) -> Iterator[Trial]:
    """Count of target lines, over all time or halved every so many days."""
    for days in (float("inf"), 112.0, 56.0, 28.0, 14.0, 7.0, 3.0, 1.0):
        yield {"half_life_days": days}, lambda _, d=days: _constant(_popular(shop, d))


def frequency(shop: Shop) -> Iterator[Trial]:
    """How often the shopper had an item, faded; ties by popularity."""
    floor = _popular(shop, 112.0)
    floor = 1e-3 * floor / max(float(floor.max(initial=0.0)), 1e-9)
    fades = [Fade(per_event=g) for g in (0.95, 0.9, 0.97, 0.8, 0.98, 0.99, 1.0, 0.6)]
    fades += [Fade(half_life_days=d) for d in (112.0, 56.0, 28.0, 7.0, 1.0)]
    for fade in fades:
        yield _fade(fade), lambda _, f=fade: lambda w: _dense(faded(shop, w, f)) + torch.from_numpy(
            floor
        )


def item_knn(shop: Shop) -> Iterator[Trial]:
    """Cosine neighbours of what the shopper had, faded (Sarwar et al., WWW 2001)."""
    x = item_rows.interactions(shop.histories, shop.trained, shop.items)
    for shrink, keep in product((10.0, 50.0, 0.0), (200, 50, 1000)):
        rows = item_rows.top(item_rows.cosine(x, shrink), keep)
        for gamma in (0.95, 0.9, 0.98, 0.8, 1.0):
            setting = {"shrink": shrink, "neighbours": keep, "per_event": gamma}
            yield setting, lambda _, r=rows, g=gamma: _rows(shop, r, Fade(per_event=g))


def ease(shop: Shop) -> Iterator[Trial]:
    """EASE over the faded history (Steck, WWW 2019)."""
    x = item_rows.interactions(shop.histories, shop.trained, shop.items)
    for ridge in (500.0, 200.0, 1000.0, 100.0, 50.0, 2000.0):
        rows = item_rows.ease(x, ridge)
        for gamma in (0.95, 0.9, 0.98, 0.8, 1.0):
            setting = {"ridge": ridge, "per_event": gamma}
            yield setting, lambda _, r=rows, g=gamma: _rows(shop, r, Fade(per_event=g))


def transitions(shop: Shop) -> Iterator[Trial]:
    """What came after what the shopper had, faded."""
    rows = item_rows.transitions(shop.histories, shop.trained, shop.items)
    for gamma in (0.8, 0.9, 0.6, 0.95, 0.98, 0.4):
        yield {"per_event": gamma}, lambda _, g=gamma: _rows(shop, rows, Fade(per_event=g))


def ease_transitions(shop: Shop) -> Iterator[Trial]:
    """EASE and transitions added up, each faded in its own way."""
    x = item_rows.interactions(shop.histories, shop.trained, shop.items)
    after = item_rows.transitions(shop.histories, shop.trained, shop.items)
    for ridge in (500.0, 200.0, 1000.0):
        rows = item_rows.ease(x, ridge)
        for gamma, other, share in product((0.95, 0.9), (0.8, 0.6), (1.0, 0.3, 3.0)):
            setting = {
                "ridge": ridge, "per_event": gamma, "transitions_per_event": other,
                "transitions_share": share,
            }  # fmt: skip
            yield setting, lambda _, r=rows, g=gamma, o=other, s=share: _sum(
                _rows(shop, r, Fade(per_event=g)), _rows(shop, after, Fade(per_event=o)), s
            )


def ridge_baskets(shop: Shop) -> Iterator[Trial]:
    """Ridge regression of the next basket on the faded history, plus faded counts."""
    asked = _training_requests(shop)
    y = baskets(shop, asked)
    for gamma in (0.9, 0.95, 0.8):
        h = faded(shop, asked, Fade(per_event=gamma))
        gram = np.asarray((h.T @ h).todense(), np.float64)
        right = np.asarray((h.T @ y).todense(), np.float64)
        for ridge in (100.0, 1000.0, 20.0):
            penalised = gram + ridge * np.eye(len(gram))
            weights = np.linalg.solve(penalised, right).astype(np.float32)
            for count_gamma, share in product((0.95, 0.9), (0.25, 0.1, 0.5)):
                setting = {
                    "per_event": gamma, "ridge": ridge, "count_per_event": count_gamma,
                    "count_share": share,
                }  # fmt: skip
                yield setting, lambda _, r=weights, g=gamma, c=count_gamma, s=share: _sum(
                    _rows(shop, r, Fade(per_event=g)), _counts(shop, Fade(per_event=c)), s
                )


def ials(shop: Shop) -> Iterator[Trial]:
    """Implicit ALS; a history is folded in at each request (Hu, Koren, Volinsky, ICDM 2008)."""
    x = item_rows.interactions(shop.histories, shop.trained, shop.items)
    for alpha, ridge in ((5.0, 10.0), (2.0, 10.0), (10.0, 10.0), (5.0, 50.0), (5.0, 2.0)):
        factors = als(x, dim=64, alpha=alpha, ridge=ridge)
        for gamma in (1.0, 0.98, 0.95):
            setting = {"dim": 64, "alpha": alpha, "ridge": ridge, "per_event": gamma}
            yield setting, lambda _, f=factors, a=alpha, r=ridge, g=gamma: lambda w: (
                solve(faded(shop, w, Fade(per_event=g)), f, alpha=a, ridge=r) @ f.T
            )


def als(x: Any, *, dim: int, alpha: float, ridge: float, rounds: int = 12, seed: int = 0) -> Tensor:
    """Return item factors of weighted matrix factorisation, shape (N, dim).

    Minimises ``Σ c_ui (p_ui − u·v)² + λ(|u|² + |v|²)`` with ``c = 1 + α x``, ``p = [x > 0]``.
    """
    generator = torch.Generator().manual_seed(seed)
    items = 0.01 * torch.randn(x.shape[1], dim, generator=generator)
    columns = x.T.tocsr()
    for _ in range(rounds):
        users = solve(x, items, alpha=alpha, ridge=ridge)
        items = solve(columns, users, alpha=alpha, ridge=ridge)
    return items


def solve(x: Any, other: Tensor, *, alpha: float, ridge: float) -> Tensor:
    """Return the factors of the rows of x, given those of its columns; shape (rows, dim)."""
    dim = other.shape[1]
    whole = other.T @ other + ridge * torch.eye(dim)
    out = torch.zeros(x.shape[0], dim)
    for begin in range(0, x.shape[0], 256):
        part = x[begin : begin + 256]
        row = torch.from_numpy(np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)))
        value = alpha * torch.from_numpy(part.data)
        vectors = other[torch.from_numpy(part.indices.astype(np.int64))]
        left = whole.repeat(part.shape[0], 1, 1)
        left.index_add_(0, row, value[:, None, None] * vectors[:, :, None] * vectors[:, None, :])
        right = torch.zeros(part.shape[0], dim).index_add_(0, row, (1 + value)[:, None] * vectors)
        out[begin : begin + 256] = torch.linalg.solve(left, right)
    return out


def tifu_knn(shop: Shop) -> Iterator[Trial]:
    """Temporal item frequency with user neighbours (Hu et al., SIGIR 2020).

    A basket counts ``r_b^(place from the end of its group)``, a group ``r_g^(groups since)``,
    each averaged; the score is ``α · own + (1 − α) · mean of the nearest users``.
    """
    known = _last_training_requests(shop)
    groups = ((7, 0.9, 0.7), (7, 1.0, 0.8), (3, 0.9, 0.7), (11, 0.9, 0.6), (7, 0.9, 0.9))
    for size, in_group, between in groups:
        table = group_vectors(shop, known, size, in_group, between)
        norm = np.sqrt(np.asarray(table.multiply(table).sum(axis=1))).ravel()
        for neighbours, share in product((300, 100, 900), (0.7, 0.9, 0.5)):
            setting = {
                "group": size, "within": in_group, "between": between,
                "neighbours": neighbours, "own_share": share,
            }  # fmt: skip
            yield setting, lambda _, t=table, n=norm, a=(size, in_group, between), k=neighbours, s=share: (
                lambda w: _blend(shop, w, t, n, known, group_vectors(shop, w, *a), k, s)
            )


def group_vectors(shop: Shop, wanted: Window, size: int, within: float, between: float) -> Any:
    """Return TIFU's user vectors before the requests, shape (P, N), sparse."""
    histories = shop.histories
    positive = np.cumsum(histories.weight > 0)
    plain = faded(shop, wanted, Fade())
    del plain
    start = histories.starts[:-1][wanted.user]
    count = positive[wanted.event - 1] - np.where(start > 0, positive[start - 1], 0)
    groups = np.maximum(1, -(-count // size))
    weight = _group_weights(int(count.max(initial=1)), size, within, between)
    return _weighted(shop, wanted, lambda request, since: weight[since] / groups[request])


def _group_weights(most: int, size: int, within: float, between: float) -> Any:
    since = np.arange(most + 1)
    return within ** (since % size) * between ** (since // size) / size


def _weighted(shop: Shop, wanted: Window, weigh: Callable[[Any, Any], Any]) -> Any:
    histories = shop.histories
    positive = np.cumsum(histories.weight > 0)
    start = histories.starts[:-1][wanted.user]
    sizes = histories.lines[wanted.event] - histories.lines[start]
    from training.sequences import ranges

    line = ranges(histories.lines[start], sizes)
    request = np.repeat(np.arange(len(sizes)), sizes)
    per_event = np.diff(histories.lines)
    event = np.repeat(np.arange(len(per_event)), per_event)[line]
    since = positive[wanted.event[request] - 1] - positive[event]
    item = histories.item[line]
    kept = (item > 0) & (histories.weight[event] > 0)
    value = weigh(request[kept], since[kept]) * histories.weight[event[kept]]
    shape = (len(wanted.event), shop.items)
    return sp.csr_matrix((value.astype(np.float32), (request[kept], item[kept] - 1)), shape)


def _blend(
    shop: Shop, wanted: Window, table: Any, norm: Any, known: Window, own: Any, k: int, share: float
) -> Tensor:
    """Return α · own + (1 − α) · mean of the k nearest users' vectors, by Euclid."""
    square = np.asarray(own.multiply(own).sum(axis=1))
    distance = square + norm[None, :] ** 2 - 2 * np.asarray((own @ table.T).todense())
    distance[wanted.user[:, None] == known.user[None, :]] = np.inf
    k = min(k, distance.shape[1])
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    rows = np.repeat(np.arange(len(near)), k)
    mean = sp.csr_matrix((np.full(near.size, 1 / k, np.float32), (rows, near.ravel())),
                         (len(near), table.shape[0])) @ table  # fmt: skip
    return share * _dense(own) + (1 - share) * _dense(mean)


def _training_requests(shop: Shop) -> Window:
    from training.baselines import window

    return window(shop.histories, -(2**62), shop.split.train_until_ms)


def _last_training_requests(shop: Shop) -> Window:
    """Return, for each user with training events, a request right after the last of them."""
    starts = shop.histories.starts
    trained = np.add.reduceat(
        np.append(shop.trained, False), np.minimum(starts[:-1], len(shop.trained))
    )
    user = np.flatnonzero((trained > 0) & (np.diff(starts) > 0))
    return Window(starts[:-1][user] + trained[user], user)


def _popular(shop: Shop, half_life_days: float) -> Any:
    return recent_popularity(
        shop.histories, shop.items, until_ms=shop.split.train_until_ms,
        half_life_days=half_life_days,
    )  # fmt: skip


def _constant(scores: Any) -> Score:
    return lambda w: torch.from_numpy(scores).expand(len(w.event), -1)


def _rows(shop: Shop, rows: Any, fade: Fade) -> Score:
    return lambda w: _dense(faded(shop, w, fade) @ rows)


def _counts(shop: Shop, fade: Fade) -> Score:
    return lambda w: _dense(faded(shop, w, fade))


def _sum(one: Score, other: Score, share: float) -> Score:
    return lambda w: one(w) + share * other(w)


def _dense(values: Any) -> Tensor:
    return torch.from_numpy(
        np.asarray(values.todense() if sp.issparse(values) else values, np.float32)
    )


def _fade(fade: Fade) -> Setting:
    return {"per_event": fade.per_event, "half_life_days": fade.half_life_days}
