"""Recommendations from memory: scores, filters, reasons. Reads nothing, waits for nothing.

With a model the scores are the model's; without one, or for a user it does not know, items
are ranked by what sells lately, raised where the explicit profile shows interest. Belongs
here: which items, in which order, and why. Where a user's state comes from is `routes`' work.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from services.catalogue import Catalogue

Floats = npt.NDArray[np.floating[Any]]

POPULAR_POOL: Final = 2000
_ITEM_BOOST: Final = 2.0
_CATEGORY_BOOST: Final = 1.5
_BRAND_BOOST: Final = 0.5


class ModelScorer(Protocol):
    """What is needed of `training.scoring.Scorer`."""

    def scores(
        self, state: bytes | None, now_ms: int, user_features: Mapping[str, float] | None
    ) -> Floats:
        """Return a score for every item of the vocabulary."""
        ...

    def item_embeddings(self) -> Floats:
        """Return one row an item of the vocabulary."""
        ...


@dataclass(frozen=True, slots=True)
class Shopper:
    """What a recommendation knows of the user.

    Attributes
    ----------
    learned
        Encoder state, or None: then the model is not asked.
    interests
        As in the profile's ``interests``.
    purchased, seen, refused
        Item ids.
    """

    learned: bytes | None = None
    interests: Sequence[Mapping[str, Any]] = ()
    purchased: Collection[str] = ()
    seen: Collection[str] = ()
    refused: Collection[str] = ()
    user_features: Mapping[str, float] | None = None

    @property
    def known(self) -> bool:
        """Whether there is anything to personalise by."""
        return self.learned is not None or bool(self.interests)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for."""

    n: int = 10
    excluded: Collection[str] = ()
    category: str | None = None
    explain: bool = False
    only: Sequence[str] | None = None
    """Rank exactly these items instead of choosing."""


@dataclass(slots=True)
class Ranking:
    """Items best first, and where the scores are from."""

    items: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    personalized: bool = False


class Recommender:
    """Ranks items for a shopper.

    Parameters
    ----------
    catalogue
        Items on offer, categories, titles.
    scorer, vocabulary, version
        The model's scorer, its item ids in score order and its version; None without a model.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        scorer: ModelScorer | None = None,
        vocabulary: Sequence[str] = (),
        version: str | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._scorer = scorer
        self._vocabulary = list(vocabulary)
        self._index = {item: n for n, item in enumerate(self._vocabulary)}
        self._version = version
        self._popular: dict[str, float] = {}
        self._offered: tuple[int, int, npt.NDArray[np.bool_]] | None = None

    @property
    def version(self) -> str | None:
        """Version of the model in use."""
        return self._version if self._scorer is not None else None

    def set_popular(self, scores: Iterable[tuple[str, float]]) -> None:
        """Take up new popularity scores, best first."""
        pairs = list(scores)
        top = pairs[0][1] if pairs else 1.0
        self._popular = {item: score / top if top > 0 else 0.0 for item, score in pairs}

    def rank(self, shopper: Shopper, wish: Wish, now_ms: int) -> Ranking:
        """Return the best items for ``shopper``."""
        by_model = self._scorer is not None and shopper.learned is not None
        if by_model:
            scored = self._by_model(shopper, wish, now_ms)
        else:
            scored = self._by_popularity(shopper, wish, now_ms)
        explained = self._reasons(shopper) if wish.explain else None
        ranking = Ranking(model=self._version if by_model else None, personalized=shopper.known)
        for rank, (item, score) in enumerate(scored[: wish.n], start=1):
            entry: dict[str, Any] = {"item_id": item, "score": round(score, 6), "rank": rank}
            entry["reasons"] = [] if explained is None else explained(item)
            ranking.items.append(entry)
        return ranking

    def similar(self, item_id: str, n: int, now_ms: int) -> tuple[str, list[tuple[str, float]]]:
        """Return how similarity was judged and the items most similar to ``item_id``."""
        index = self._index.get(item_id)
        if self._scorer is not None and index is not None:
            embeddings = self._scorer.item_embeddings()
            norms = np.linalg.norm(embeddings, axis=1) + 1e-9
            cosine = embeddings @ embeddings[index] / (norms * norms[index])
            cosine = np.where(self._mask(now_ms), cosine, -np.inf)
            cosine[index] = -np.inf
            return "embedding", self._top(cosine, n)
        return "category", self._same_shelf(item_id, n, now_ms)

    def _same_shelf(self, item_id: str, n: int, now_ms: int) -> list[tuple[str, float]]:
        entry = self._catalogue.entries.get(item_id)
        if entry is None:
            return []
        path = (entry.category or "").split("/")
        found = []
        for other, candidate in self._catalogue.entries.items():
            if other == item_id or not candidate.offered(now_ms):
                continue
            shared = _shared(path, (candidate.category or "").split("/"))
            score = shared / max(1, len(path)) * 0.7
            score += 0.2 if entry.brand and entry.brand == candidate.brand else 0.0
            if score > 0:
                found.append((other, score + 0.1 * self._popular.get(other, 0.0)))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:n]

    def _by_model(self, shopper: Shopper, wish: Wish, now_ms: int) -> list[tuple[str, float]]:
        assert self._scorer is not None
        scores = np.asarray(self._scorer.scores(shopper.learned, now_ms, shopper.user_features))
        if wish.only is not None:
            lowest = float(scores.min())
            known = [(i, float(scores[self._index[i]])) for i in wish.only if i in self._index]
            unknown = [(i, lowest - 1.0) for i in wish.only if i not in self._index]
            return sorted(known, key=lambda pair: -pair[1]) + unknown
        allowed = self._mask(now_ms).copy()
        for item in (*wish.excluded, *shopper.refused):
            index = self._index.get(item)
            if index is not None:
                allowed[index] = False
        if wish.category is not None:
            allowed &= np.fromiter(
                (self._in(item, wish.category) for item in self._vocabulary), bool, allowed.size
            )
        return self._top(np.where(allowed, scores, -np.inf), wish.n)

    def _top(self, scores: Floats, n: int) -> list[tuple[str, float]]:
        n = min(n, int(np.isfinite(scores).sum()))
        if n == 0:
            return []
        best = np.argpartition(-scores, n - 1)[:n]
        best = best[np.lexsort((best, -scores[best]))]
        return [(self._vocabulary[i], float(scores[i])) for i in best]

    def _by_popularity(self, shopper: Shopper, wish: Wish, now_ms: int) -> list[tuple[str, float]]:
        boosts = {(i["kind"], str(i["key"])): float(i["weight"]) for i in shopper.interests}
        heaviest = max(boosts.values(), default=0.0) or 1.0
        if wish.only is not None:
            pool: Iterable[str] = wish.only
        else:
            own = (key for kind, key in boosts if kind == "item")
            pool = dict.fromkeys([*self._popular, *own, *self._newcomers(wish)])
        banned = set(wish.excluded) | set(shopper.refused)
        found = []
        for item in pool:
            if wish.only is None and (
                item in banned
                or not self._is_offered(item, now_ms)
                or (wish.category is not None and not self._in(item, wish.category))
            ):
                continue
            found.append((item, self._popular.get(item, 0.0) + self._boost(item, boosts, heaviest)))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def _newcomers(self, wish: Wish) -> list[str]:
        # A shop without sales, or a category without any, still has something to show.
        if wish.category is None and len(self._popular) >= wish.n:
            return []
        entries = self._catalogue.entries
        found = (i for i in entries if wish.category is None or self._in(i, wish.category))
        return [item for item, _ in zip(found, range(POPULAR_POOL), strict=False)]

    def _boost(self, item: str, boosts: Mapping[tuple[str, str], float], heaviest: float) -> float:
        if not boosts:
            return 0.0
        boost = _ITEM_BOOST * boosts.get(("item", item), 0.0)
        entry = self._catalogue.entries.get(item)
        if entry is not None:
            if entry.category:
                shelf = boosts.get(("category", entry.category))
                top = boosts.get(("category", entry.category.split("/")[0]), 0.0)
                boost += _CATEGORY_BOOST * (top / 3 if shelf is None else shelf)
            if entry.brand:
                boost += _BRAND_BOOST * boosts.get(("brand", entry.brand), 0.0)
        return boost / heaviest

    def _reasons(self, shopper: Shopper) -> Callable[[str], list[dict[str, Any]]]:
        interests = {(i["kind"], str(i["key"])): i for i in shopper.interests}

        def reasons(item: str) -> list[dict[str, Any]]:
            found = list[dict[str, Any]]()
            own = interests.get(("item", item))
            evidence = _evidence(own)
            if item in shopper.purchased or evidence.get("purchase"):
                found.append({"code": "bought_before", "evidence": evidence})
            elif own is not None:
                found.append({"code": "looked_at", "evidence": evidence})
            entry = self._catalogue.entries.get(item)
            for kind, key in (
                ("category", entry.category if entry else None),
                ("category", (entry.category or "").split("/")[0] if entry else None),
                ("brand", entry.brand if entry else None),
            ):
                interest = interests.get((kind, key)) if key else None
                if interest is not None:
                    code = f"interest_{kind}"
                    found.append({"code": code, "key": key, "evidence": _evidence(interest)})
                    break
            if not found:
                found.append({"code": "popular" if item in self._popular else "catalogue"})
            return found

        return reasons

    def _is_offered(self, item: str, now_ms: int) -> bool:
        entry = self._catalogue.entries.get(item)
        return entry is None or entry.offered(now_ms)

    def _in(self, item: str, category: str) -> bool:
        entry = self._catalogue.entries.get(item)
        if entry is None or entry.category is None:
            return False
        return entry.category == category or entry.category.startswith(category + "/")

    def _mask(self, now_ms: int) -> npt.NDArray[np.bool_]:
        minute = now_ms // 60_000
        changes = self._catalogue.changes
        if self._offered is None or self._offered[:2] != (changes, minute):
            mask = np.fromiter(
                (self._is_offered(item, now_ms) for item in self._vocabulary),
                bool,
                len(self._vocabulary),
            )
            self._offered = (changes, minute, mask)
        return self._offered[2]


def _evidence(interest: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if interest is None else dict(interest.get("evidence") or {})


def _shared(path: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(path, other, strict=False):
        if not a or a != b:
            break
        count += 1
    return count
