"""The reranker: boosted trees that order the best candidates of one request anew.

Trees (LightGBM's LambdaRank; Ke et al., 2017, Burges, 2010) read `state.candidate_facts` of the
`SHORTLIST` best items and add to their scores::

    score_j = s_j + t(facts_j),   and  s_j + min_i t(facts_i)  for what is no candidate

so an item off the shortlist keeps its place among its like. Belongs here: asking the trees. Not
here: fitting them and whether they pay (`training.fit.reranker`).

Shape legend: K candidates, N items, F facts, H half-lives.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InvalidSettingError, ModelMismatchError
from training.history.vocabulary import Vocabulary
from training.state.candidate_facts import FACTS, write_facts

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
SHORTLIST: Final = 100


@dataclass(frozen=True)
class RankedMoment:
    """One user's repeat table as of one moment, and what sells then.

    Attributes
    ----------
    rows, scalars, now_ms
        See `training.state.candidate_facts.write_facts`.
    sells
        Logarithms of how many users the items had lately and just now, shape (H, N); None where
        nobody knows.
    """

    rows: npt.NDArray[np.void]
    scalars: npt.NDArray[np.float64]
    now_ms: float
    sells: Floats | None


class Reranker:
    """Trees over the facts of candidates.

    Parameters
    ----------
    trees
        As LightGBM writes them.
    vocabulary
        Of the model.

    Raises
    ------
    ModelMismatchError
        If the trees cannot be read, or read other facts than this code makes.
    """

    def __init__(self, trees: str, vocabulary: Vocabulary) -> None:
        lightgbm = import_lightgbm()
        self.trees = trees
        self._category = vocabulary.item_category
        self._gaps = vocabulary.median_gap_days
        try:
            self._booster = lightgbm.Booster(model_str=trees)
        except lightgbm.basic.LightGBMError as error:
            raise ModelMismatchError("the reranker's trees cannot be read") from error
        if self._booster.feature_name() != list(FACTS):
            raise ModelMismatchError("the reranker reads other facts than this version makes")

    def rerank(self, scores: Floats, logits: Floats, moment: RankedMoment) -> Floats:
        """Return every item's score with what the trees add, shape (N,).

        Parameters
        ----------
        scores, logits
            Of all items: their scores, and the network's own logits. Shape (N,).
        """
        item, facts = self.facts(scores, logits, moment)
        added = self._booster.predict(facts, num_threads=1).astype(np.float32)
        out: Floats = scores + added.min()
        out[item] = scores[item] + added
        return out

    def facts(self, scores: Floats, logits: Floats, moment: RankedMoment) -> tuple[Ints, Floats]:
        """Return the shortlist, best first, and its facts, shapes (K,) and (K, F)."""
        item = shortlist(scores)
        return item, make_facts(item, scores, logits, moment, self._category, self._gaps)

    def explain(self, facts: Floats) -> Floats:
        """Return what each fact added to candidates: SHAP values of trees, shape (K, F + 1).

        The last column is what the trees add to everything (Lundberg et al., 2020).
        """
        out: Floats = self._booster.predict(facts, pred_contrib=True, num_threads=1)
        return out


def import_lightgbm() -> Any:
    """Return the library; it is slow to import, so only where there are trees.

    Raises
    ------
    InvalidSettingError
        Where the system lacks a library that it needs.
    """
    try:
        import lightgbm
    except OSError as error:
        raise InvalidSettingError(
            f"LightGBM cannot be loaded ({error}): install GNU's OpenMP, libgomp1 on Debian"
        ) from error
    return lightgbm


def shortlist(scores: Floats) -> Ints:
    """Return the `SHORTLIST` best items, best first; of equals the earlier, shape (K,)."""
    most = min(SHORTLIST, len(scores))
    least = np.partition(scores, len(scores) - most)[len(scores) - most]
    item = np.flatnonzero(scores >= least)
    found: Ints = item[np.argsort(-scores[item], kind="stable")][:most]
    return found


def make_facts(
    item: Ints, scores: Floats, logits: Floats, moment: RankedMoment, category: Ints, gaps: Floats
) -> Floats:
    """Return the facts of candidates, shape (K, F); see `training.state.candidate_facts`."""
    out = np.empty((len(item), len(FACTS)), np.float32)
    sells = moment.sells
    now = np.full((2, len(item)), np.nan, np.float32) if sells is None else sells[:, item]
    write_facts(
        out, item, scores[item], logits[item], moment.rows, moment.scalars, moment.now_ms,
        category, gaps, now,
    )  # fmt: skip
    return out
