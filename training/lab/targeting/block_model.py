"""A classifier over blocks of features of unequal worth: ridge logistic regression and boosting.

The ridge sees every block standardised and multiplied by the block's scale, which is a penalty
of its own for each block (a scale of a half is four times the penalty); boosting sees only the
blocks named for it. Their logits are averaged by a weight. Scales are multiplied by one
*breadth*, which is chosen with the rest on folds of the training rows, whole users at a time.

Belongs here: the classifier and its choice. Not here: what the blocks hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from feature_repo.errors import InvalidInputError
from training.lab.targeting.score_metrics import grouped_auc

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS: Final = 4
LIMIT: Final = 6.0
"""Standard deviations at which a value is cut."""


@dataclass(frozen=True)
class FeatureRows:
    """Rows to learn from or to judge.

    Attributes
    ----------
    blocks
        Name to table, a row each; columns that a later table lacks count as 0.
    label
        1.0 or 0.0, shape (R,).
    user, group
        Whose row it is, and in which campaign or at which date, shape (R,).
    """

    blocks: Mapping[str, pd.DataFrame]
    label: Doubles
    user: Ints
    group: Ints

    @classmethod
    def join(cls, parts: Sequence["FeatureRows"]) -> "FeatureRows":
        """Return the rows of all parts, in order; what one lacks in columns is 0."""
        names = parts[0].blocks
        return cls(
            {n: pd.concat([p.blocks[n] for p in parts], ignore_index=True).fillna(0.0)
             for n in names},
            *(np.concatenate([getattr(p, f) for p in parts]) for f in ("label", "user", "group")),
        )  # fmt: skip

    def take(self, chosen: npt.NDArray[Any]) -> "FeatureRows":
        """Return some of the rows."""
        return FeatureRows(
            {name: table.iloc[chosen] for name, table in self.blocks.items()},
            self.label[chosen], self.user[chosen], self.group[chosen],
        )  # fmt: skip

    def only(self, names: Sequence[str]) -> "FeatureRows":
        """Return the same rows with some blocks only."""
        return replace(self, blocks={name: self.blocks[name] for name in names})


@dataclass(frozen=True)
class Setting:
    """What is chosen on folds.

    Attributes
    ----------
    c
        Inverse strength of the ridge's penalty.
    breadth
        What scales of blocks but the first are multiplied by; 0 leaves them out.
    boosting
        Weight of boosting's logit, 0 to 1.
    leaves, rounds
        Of each tree, and trees.
    """

    c: float = 0.03
    breadth: float = 1.0
    boosting: float = 0.25
    leaves: int = 4
    rounds: int = 100


class BlockModel:
    """See the module's docstring.

    Parameters
    ----------
    scales
        Blocks to their scales; the first is the core, whose scale stays as it is.
    boosted
        Blocks that boosting sees.
    support
        Fewest training rows in which a column must differ from 0.
    setting
        See `Setting`.
    """

    def __init__(
        self,
        scales: Mapping[str, float],
        boosted: Sequence[str],
        *,
        support: int = 20,
        setting: Setting | None = None,
    ) -> None:
        self.scales, self.boosted, self.support = dict(scales), tuple(boosted), support
        self.setting = setting or Setting()

    def fit(self, rows: FeatureRows) -> "BlockModel":
        """Fit to labelled rows.

        Raises
        ------
        InvalidInputError
            If one of the two labels is missing.
        """
        if len(np.unique(rows.label)) < 2:
            raise InvalidInputError("all labels are the same: there is nothing to learn")
        self._columns: dict[str, pd.DataFrame] = {}
        for name, scale in self._scale_blocks().items():
            table = rows.blocks[name].astype(np.float64)
            seen = (table != 0).sum() >= min(self.support, len(table) // 4)
            kept = table.loc[:, seen & (table.std(ddof=0) > 1e-9)]
            self._columns[name] = pd.DataFrame(
                {"mean": kept.mean(), "factor": scale / kept.std(ddof=0), "limit": LIMIT * scale}
            )
        self._ridge: Any = None
        if self.setting.boosting < 1:
            ridge = LogisticRegression(C=self.setting.c, max_iter=2000)
            self._ridge = ridge.fit(self._matrix(rows), rows.label)
        self._trees: list[Any] = []
        if self.setting.boosting > 0:
            self._boosted_columns = {n: list(rows.blocks[n].columns) for n in self.boosted}
            self._trees = [self._boost(rows, seed) for seed in range(3)]
        return self

    def logit(self, rows: FeatureRows) -> Doubles:
        """Return the logits of the probability that the label is 1, shape (R,)."""
        out, weight = np.zeros(len(rows.label)), self.setting.boosting
        if self._ridge is not None:
            out += (1 - weight) * self._ridge.decision_function(self._matrix(rows))
        if self._trees:
            table = self._boosting_table(rows)
            trees = [tree.decision_function(table) for tree in self._trees]
            out += weight * np.mean(trees, axis=0)
        return out

    def probability(self, rows: FeatureRows) -> Doubles:
        """Return the probability that the label is 1, shape (R,)."""
        out: Doubles = 1 / (1 + np.exp(-self.logit(rows)))
        return out

    def _scale_blocks(self) -> dict[str, float]:
        core, *_ = self.scales
        wide = {
            name: scale if name == core else scale * self.setting.breadth
            for name, scale in self.scales.items()
        }
        return {name: scale for name, scale in wide.items() if scale > 0}

    def _matrix(self, rows: FeatureRows) -> Doubles:
        parts = []
        for name, of in self._columns.items():
            table = rows.blocks[name].reindex(columns=of.index, fill_value=0.0)
            scaled = (table.to_numpy(np.float64) - of["mean"].to_numpy()) * of["factor"].to_numpy()
            limit = of["limit"].to_numpy()
            parts.append(np.clip(scaled, -limit, limit))
        return np.hstack(parts)

    def _boost(self, rows: FeatureRows, seed: int) -> Any:
        tree = HistGradientBoostingClassifier(
            max_iter=self.setting.rounds, learning_rate=0.04, max_leaf_nodes=self.setting.leaves,
            min_samples_leaf=30, l2_regularization=5.0, max_features=0.5, random_state=seed,
        )  # fmt: skip
        return tree.fit(self._boosting_table(rows), rows.label)

    def _boosting_table(self, rows: FeatureRows) -> Doubles:
        return np.hstack(
            [
                rows.blocks[name].reindex(columns=columns, fill_value=0.0).to_numpy(np.float64)
                for name, columns in self._boosted_columns.items()
            ]
        )


def choose(model: BlockModel, rows: FeatureRows, settings: Sequence[Setting]) -> Setting:
    """Return the setting of greatest AUC within groups, weighted by positives, out of fold.

    Folds are whole users; the first of equal settings wins.
    """
    fold = rows.user * 2_654_435_761 % 2**32 // (2**32 // FOLDS + 1)
    scores = np.zeros((len(settings), len(rows.label)))
    for n in np.unique(fold):
        fold_rows = fold == n
        train, test = rows.take(np.flatnonzero(~fold_rows)), rows.take(np.flatnonzero(fold_rows))
        if len(np.unique(train.label)) < 2:
            continue
        # Settings share parts: each ridge and each set of trees is fitted once.
        parts: dict[Setting, Doubles] = {}
        for row, setting in enumerate(settings):
            for part, weight in _parts(setting):
                if part not in parts:
                    fresh = BlockModel(
                        model.scales, model.boosted, support=model.support, setting=part
                    )
                    parts[part] = fresh.fit(train).logit(test)
                scores[row, fold_rows] += weight * parts[part]
    found = [grouped_auc(rows.label, score, rows.group) for score in scores]
    return settings[int(np.argmax(np.round(found, 6)))]


def _parts(setting: Setting) -> list[tuple[Setting, float]]:
    """Return the ridge alone and the trees alone, and their weights, where those are not 0."""
    default, weight = Setting(), setting.boosting
    ridge = replace(setting, boosting=0.0, leaves=default.leaves, rounds=default.rounds)
    trees = replace(setting, boosting=1.0, c=default.c, breadth=default.breadth)
    return [(part, w) for part, w in ((ridge, 1 - weight), (trees, weight)) if w > 0]
