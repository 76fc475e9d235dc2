"""The stages in order: candidates, score, rules, diversify, explain.

Belongs here: which items, in which order, and why, from memory alone. Where a user's state
comes from and how the answer is sent are the routes' work.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from services.catalogue.catalogue import Catalogue
from services.http.answer_schemas import RelaxedRule, SimilarityMethod
from services.recommend import candidates, score, search
from services.recommend.assortment import Assortment, AssortmentRows, Mask, Rows
from services.recommend.choose import Choice, Choosing
from services.recommend.content import Neighbours, nearness
from services.recommend.diversify import best
from services.recommend.explain import reasons
from services.recommend.popular import Pairs, Popular
from services.recommend.ranking import Ranking
from services.recommend.recommendation_request import RecommendationRequest
from services.recommend.retrieve import MANY_ITEMS, depth, retrieve
from services.recommend.rule_fallback import relax
from services.recommend.rules import ALL, Rules, boosts, mask_allowed
from services.recommend.score import ItemFacts, Scores
from services.recommend.user_context import UserContext

if TYPE_CHECKING:
    from training.scoring.scorer import Scorer

Floats = npt.NDArray[np.floating[Any]]
_T = TypeVar("_T")
Steps = Generator[Choosing, Choice | None, _T]
"""Yields what is to be chosen, is sent the choice; see `Recommender.ranking`."""

_AMOUNT: Final = 0.01
"""What an item that nobody touched counts where a factor must show: without a model, no logits."""

_log = structlog.get_logger(__name__)


class Recommender:
    """Ranks items for a user.

    Parameters
    ----------
    scorer, vocabulary, version
        The model's scorer, its item ids in score order and its version; None without a model.
    related
        Gives how often items go along with one of the vocabulary, by row, where the model
        remembers that; None where it does not.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        scorer: "Scorer | None" = None,
        vocabulary: Sequence[str] = (),
        version: str | None = None,
        related: Callable[[int], Floats | None] = lambda row: None,
    ) -> None:
        self._scorer = scorer
        self._version = version
        self._related = related
        self._items = Assortment(catalogue, vocabulary)
        self._popular = Popular(self._items)
        self._newcomers = candidates.Newcomers(self._items)
        self._neighbours = Neighbours(self._items)
        self._embeddings: tuple[Floats, Floats] | None = None

    @property
    def version(self) -> str | None:
        """Version of the model in use."""
        return self._version if self._scorer is not None else None

    def warm(self) -> None:
        """Lay the items out, which the first answer would otherwise wait for."""
        self._items.refresh()

    def settle(self) -> None:
        """Wait until what is near the new items that were asked for is known."""
        self._neighbours.settle()

    def set_popular(self, popular: Pairs, trending: Pairs = ()) -> None:
        """Take up new popularity and trend, best first, and a layout that has been made aside."""
        if self._items.layouts:
            self._items.refresh()
        self._popular.take(popular, trending)

    def rank(self, user: UserContext, request: RecommendationRequest, now_ms: int) -> Ranking:
        """Return the best items for a user, or those of ``request.only`` in the user's order."""
        steps, choice = self.ranking(user, request, now_ms), None
        while True:
            try:
                choosing = steps.send(choice)
            except StopIteration as end:
                ranking: Ranking = end.value
                return ranking
            choice = choosing.choose()

    def ranking(
        self, user: UserContext, request: RecommendationRequest, now_ms: int
    ) -> Steps[Ranking]:
        """Do what `rank` does in steps, so that what takes long may be done aside.

        Yields what is to be chosen and is sent the choice, which may be made in any thread; the
        steps themselves belong to the one thread that calls everything else of this object.
        """
        self._items.refresh()
        task = _Task(Ranking(personalized=user.known), user, request, now_ms)
        if not (yield from self._search(task)):
            yield from self._rank_all(task)
        if request.explain:
            self.explaining(task.ranking, user, now_ms)()
        task.ranking.lap("explain")
        return task.ranking

    def _rank_all(self, task: "_Task") -> Steps[None]:
        """Fill the ranking out of the scores of all items."""
        beyond, new = self._candidates(task)
        task.ranking.lap("candidates")
        scores = self._score(task, beyond)
        task.ranking.lap("score")
        if task.request.only is not None:
            task.ranking.fill(self._order(task, scores, task.request.only))
            return
        values, rules = self._apply_rules(task, scores)
        task.ranking.lap("rules")
        part = AssortmentRows(self._items, scores.rows)
        if scores.rows is not None and rules.new_items:
            new = np.flatnonzero(np.isin(scores.rows, new))
        yield from self._choose(task, part, values, rules, new)
        task.ranking.lap("diversify")

    def _order(self, task: "_Task", scores: Scores, only: Sequence[str]) -> list[tuple[str, float]]:
        """Return the items by score, and by their relevance to a query where there is one."""
        scored = _score_given(self._items, scores, only)
        relevance = task.request.relevance
        if not relevance and task.request.query is not None:
            relevance = search.match_words(self._items, task.request.query, only)
        if relevance:
            return search.blend(scored, relevance, known=task.user.known)
        return sorted(scored, key=lambda pair: -pair[1])

    def facts(self, wanted: Sequence[str]) -> list[ItemFacts]:
        """Return what the score without a model reads of some items."""
        items, found = self._items, list[ItemFacts]()
        items.refresh()
        popular = self._popular.column()
        for item in wanted:
            row = items.row.get(item)
            if row is None:
                found.append(ItemFacts(item))
                continue
            category, brand = items.category[row], items.brand[row]
            names = items.categories.of[category], items.brands.of[brand]
            found.append(ItemFacts(item, *names, float(popular[row])))
        return found

    def similar(
        self, item_id: str, n: int, now_ms: int
    ) -> Callable[[], tuple[SimilarityMethod, list[tuple[str, float]]]]:
        """Return what finds how similarity was judged and the items most similar to ``item_id``.

        The call that is returned may take long, and be made from any thread.
        """
        self._items.refresh()
        popular = self._popular.column()  # first: it may give items their rows
        items, row = self._items, self._items.row.get(item_id)
        offered, ids = items.mask_offered(now_ms), items.ids
        if row is None:
            return lambda: ("category", [])
        near = None if self._scorer is not None and row < items.known else nearness(items, row)

        def find() -> tuple[SimilarityMethod, list[tuple[str, float]]]:
            method: SimilarityMethod
            if near is None:
                method, values = self._alike(row)
                values = np.where(offered[: len(values)], values, -np.inf)
            else:
                method = "vector" if item_id in items.vectors.row else "category"
                found = near()
                values = np.where(offered & (found > 0), found, -np.inf) + 0.001 * popular
            values[row] = -np.inf
            return method, [(ids[i], float(values[i])) for i in best(values, n)]

        return find

    def _alike(self, row: int) -> tuple[SimilarityMethod, Floats]:
        vectors, norms = self._vectors()
        cosine = vectors @ vectors[row] / (norms * norms[row])
        together = self._related(row)
        if together is None or not together.any():
            return "embedding", cosine
        return "embedding+co_occurrence", (cosine + together / together.max()) / 2

    def _vectors(self) -> tuple[Floats, Floats]:
        if self._embeddings is None:
            assert self._scorer is not None
            vectors = np.asarray(self._scorer.item_embeddings())
            self._embeddings = vectors, np.linalg.norm(vectors, axis=1) + 1e-9
        return self._embeddings

    def _candidates(self, task: "_Task") -> tuple[Rows, Rows]:
        """Return the candidates beyond the vocabulary, and the new items."""
        items, user, now_ms = self._items, task.user, task.now_ms
        new = self._newcomers.rows(now_ms)
        if task.request.only is not None:
            rows = items.rows(task.request.only)
            return rows[rows >= items.known], new
        if self._scorer is None or user.learned is None:
            candidates.own_items(items, user)
            return new[:0], new
        if len(items) == items.known:
            return new[:0], new
        trending = self._popular.trending()
        beyond = candidates.beyond_vocabulary(items, self._newcomers, trending, user, now_ms)
        return beyond, new

    def _search(self, task: "_Task") -> Steps[bool]:
        """Fill the ranking of a model of very many items; False: all items are to be scored."""
        scorer, user, request = self._scorer, task.user, task.request
        if scorer is None or user.learned is None or self._items.known <= MANY_ITEMS:
            return False
        if request.only is not None:
            return False
        beyond, new = self._candidates(task)
        task.ranking.lap("candidates")
        try:
            scored = scorer.ask(user.learned, task.now_ms, user.user_features)
            task.ranking.lap("score")
            if scored is None:
                return False
            known = self._items.known
            mask, rules = self._permit(task, lambda mask: mask[:known].any() or mask[beyond].any())
            task.ranking.lap("rules")
            found = retrieve(
                self._items, scored, self._neighbours, beyond, mask, boosts(self._items, rules),
                depth(rules, request.n),
            )  # fmt: skip
            task.ranking.lap("retrieve")
        except Exception as error:  # noqa: BLE001 - the scores of all items may still be had
            _log.error("search_failed", error=type(error).__name__)
            return False
        if found is None:
            return False
        part = AssortmentRows(self._items, found.rows)
        new = np.flatnonzero(np.isin(found.rows, new))
        yield from self._choose(task, part, found.values, rules, new)
        task.ranking.lap("diversify")
        if found.cut and len(task.ranking.items) < request.n:
            return False
        task.ranking.model = self._version
        return True

    def _permit(
        self, task: "_Task", any_left: Callable[[Mask], np.bool_], rows: Rows | slice = ALL
    ) -> tuple[Mask, Rules]:
        """Return which ``rows`` the rules let through; they give way until something is left."""
        rules, user, now_ms = task.request.demands(), task.user, task.now_ms
        mask = mask_allowed(self._items, rules, user, now_ms, rows)
        if rules.fallback and not any_left(mask):
            tried = list[RelaxedRule]()
            for name, wider in relax(rules):
                tried.append(name)
                mask = mask_allowed(self._items, wider, user, now_ms, rows)
                if any_left(mask):
                    task.ranking.relaxed, rules = tried, wider
                    break
        return mask, rules

    def _score(self, task: "_Task", beyond: Rows) -> Scores:
        user = task.user
        if self._scorer is not None and user.learned is not None:
            try:
                scores = score.by_model(
                    self._items, self._scorer, self._neighbours, beyond, user, task.now_ms
                )
            except Exception as error:  # noqa: BLE001 - an answer without the model is one, too
                _log.error("model_failed", error=type(error).__name__)
                task.ranking.failed = True
            else:
                task.ranking.model = self._version
                return scores
        return score.by_profile(self._items, self._popular.column(), user)

    def _apply_rules(self, task: "_Task", scores: Scores) -> tuple[Floats, Rules]:
        """Return the scores under the rules, and these; see `_permit`."""
        rows = ALL if scores.rows is None else scores.rows
        finite = np.isfinite(scores.values)
        mask, rules = self._permit(task, lambda mask: (finite & mask).any(), rows)
        values = np.where(mask, scores.values, -np.inf)
        amount = boosts(self._items, rules, rows)
        if amount is not None:
            values = values + amount if scores.logits else (values + _AMOUNT) * np.exp(amount)
        return values, rules

    def _choose(
        self, task: "_Task", items: AssortmentRows, values: Floats, rules: Rules, new: Rows
    ) -> Steps[None]:
        ranking, request = task.ranking, task.request
        vectors = None if self._scorer is None else lambda: self._vectors()[0]
        users = partial(self._popular.count_users, now_ms=task.now_ms)
        choice = yield Choosing(items, values, new, request.n, rules, request.seed, vectors, users)
        assert choice is not None
        rows, propensities = choice
        ranking.fill(list(zip(items.names(rows), values[rows].tolist(), strict=True)))
        for entry, propensity in zip(ranking.items, propensities, strict=False):
            entry["propensity"] = round(propensity, 9)

    def explaining(self, ranking: Ranking, user: UserContext, now_ms: int) -> Callable[[], None]:
        """Return what gives each item its reasons and sources: of many it takes long, aside."""
        why = reasons(self._items, self._popular.scores, user)
        rows = [self._items.row.get(entry["item_id"], -1) for entry in ranking.items]
        new, trending = self._newcomers.rows(now_ms), self._popular.trending()
        part = AssortmentRows(self._items)  # as they are now, whatever is laid out meanwhile

        def explain() -> None:
            found = candidates.sources(
                part, rows, user, new=new, trending=trending,
                modelled=ranking.model is not None,
            )  # fmt: skip
            for entry, sources in zip(ranking.items, found, strict=True):
                entry["reasons"] = why(entry["item_id"])
                entry["sources"] = sources

        return explain


@dataclass(frozen=True, slots=True)
class _Task:
    """What the stages of one answer share."""

    ranking: Ranking
    user: UserContext
    request: RecommendationRequest
    now_ms: int


def _score_given(items: Assortment, scores: Scores, only: Sequence[str]) -> list[tuple[str, float]]:
    """Return the items with their scores; those without one have less than all others."""
    finite = scores.values[np.isfinite(scores.values)]
    lowest = float(finite.min()) - 1.0 if len(finite) and scores.logits else 0.0
    found = []
    for item in only:
        row = items.row.get(item)
        value = None if row is None else scores.at(row)
        found.append((item, lowest if value is None or not np.isfinite(value) else value))
    return found
