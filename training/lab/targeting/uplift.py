"""Whom a treatment moves: models of the effect on a binary outcome, where treatment was random.

Three ways, one protocol (`fit`, then `effect`): two models, one an arm; the X-learner (Künzel et
al. 2019), which learns from effects imputed by the other arm's model; and one joint head,

    logit P(y | x, t) = b·x + (t - e)(d + w·x),

an outcome and an effect over the same features in one fit, where ``w`` has a penalty of its own,
up to thousands of times that of ``b``. Heads of all penalties are averaged by their likelihood on
folds of the training users, so that a sample too small to tell users apart gives everybody the
mean effect rather than noise. ``e`` is the share of the treated.

Belongs here: the models. Not here: measuring them (`training.evaluation.uplift_metrics`), data
(`training.lab.studies.uplift`).
"""

from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, Ridge

from feature_repo.errors import InvalidInputError

Doubles = npt.NDArray[np.float64]

SCALES: Final = (0.02, 0.1, 0.3, 1.0)
"""What features are multiplied by in the joint head's effect: the penalty is 1 / scale² times
that of the outcome."""
FOLDS: Final = 4


class UpliftModel(Protocol):
    """Learns from users, treatments and outcomes; tells effects."""

    def fit(self, x_NF: Doubles, treated_N: Doubles, outcome_N: Doubles) -> Self:
        """Fit to standardised features, treatments (0 or 1) and outcomes (0 or 1)."""

    def effect(self, x_NF: Doubles) -> Doubles:
        """Return by how much treatment raises the probability of the outcome, shape (N,)."""


def _outcome_model(x_NF: Doubles, outcome_N: Doubles) -> LogisticRegression:
    if len(np.unique(outcome_N)) < 2:
        raise InvalidInputError("all outcomes of an arm are the same: there is nothing to learn")
    return LogisticRegression(C=1.0, solver="newton-cholesky").fit(x_NF, outcome_N)


def _probability(model: LogisticRegression, x_NF: Doubles) -> Doubles:
    out: Doubles = model.predict_proba(x_NF)[:, 1]
    return out


class TwoModels:
    """The difference of two logistic regressions, one an arm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, treated = rng.normal(size=(4000, 1)), rng.integers(0, 2, 4000).astype(float)
    >>> outcome = (rng.random(4000) < 0.3 + 0.2 * treated * (x[:, 0] > 0)).astype(float)
    >>> low, high = TwoModels().fit(x, treated, outcome).effect(np.array([[-1.0], [1.0]]))
    >>> bool(low < high)
    True
    """

    def fit(self, x_NF: Doubles, treated_N: Doubles, outcome_N: Doubles) -> Self:
        """See `UpliftModel`."""
        arm = treated_N > 0
        self.treated = _outcome_model(x_NF[arm], outcome_N[arm])
        self.control = _outcome_model(x_NF[~arm], outcome_N[~arm])
        return self

    def effect(self, x_NF: Doubles) -> Doubles:
        """See `UpliftModel`."""
        return _probability(self.treated, x_NF) - _probability(self.control, x_NF)


class XLearner:
    """Ridge regressions on effects that the other arm's outcome model imputes, by propensity."""

    def fit(self, x_NF: Doubles, treated_N: Doubles, outcome_N: Doubles) -> Self:
        """See `UpliftModel`."""
        arm = treated_N > 0
        first = TwoModels().fit(x_NF, treated_N, outcome_N)
        gained = outcome_N[arm] - _probability(first.control, x_NF[arm])
        missed = _probability(first.treated, x_NF[~arm]) - outcome_N[~arm]
        self.of_treated = Ridge(alpha=1.0).fit(x_NF[arm], gained)
        self.of_control = Ridge(alpha=1.0).fit(x_NF[~arm], missed)
        self.propensity = float(arm.mean())
        return self

    def effect(self, x_NF: Doubles) -> Doubles:
        """See `UpliftModel`."""
        out: Doubles = self.propensity * self.of_control.predict(x_NF) + (
            1 - self.propensity
        ) * self.of_treated.predict(x_NF)
        return out


class JointHead:
    """Outcome and effect in one logistic regression; see the module's docstring.

    Attributes
    ----------
    weights
        Of the heads of `SCALES`, from the last fit; they add up to 1.
    """

    weights: Doubles

    def fit(self, x_NF: Doubles, treated_N: Doubles, outcome_N: Doubles) -> Self:
        """See `UpliftModel`."""
        self.propensity = float(np.mean(treated_N > 0))
        fold = np.arange(len(outcome_N)) % FOLDS
        losses = np.zeros(len(SCALES))
        for row, scale in enumerate(SCALES):
            for n in range(FOLDS):
                kept = fold != n
                model = self._joint(x_NF[kept], treated_N[kept], outcome_N[kept], scale)
                test = self._design(x_NF[~kept], treated_N[~kept], scale)
                signed = (2 * outcome_N[~kept] - 1) * model.decision_function(test)
                losses[row] += np.logaddexp(0.0, -signed).sum()
        likelihood = np.exp(losses.min() - losses)
        self.weights = likelihood / likelihood.sum()
        self.models = [self._joint(x_NF, treated_N, outcome_N, scale) for scale in SCALES]
        return self

    def effect(self, x_NF: Doubles) -> Doubles:
        """See `UpliftModel`."""
        out = np.zeros(len(x_NF))
        for weight, scale, model in zip(self.weights, SCALES, self.models, strict=True):
            with_, without = (
                _probability(model, self._design(x_NF, np.full(len(x_NF), t), scale))
                for t in (1.0, 0.0)
            )
            out += weight * (with_ - without)
        return out

    def _joint(
        self, x_NF: Doubles, treated_N: Doubles, outcome_N: Doubles, scale: float
    ) -> LogisticRegression:
        return _outcome_model(self._design(x_NF, treated_N, scale), outcome_N)

    def _design(self, x_NF: Doubles, treated_N: Doubles, scale: float) -> Doubles:
        moved = (treated_N - self.propensity)[:, None]
        return np.hstack([x_NF, moved, scale * moved * x_NF])


MODELS: Final[dict[str, type[UpliftModel]]] = {
    "two_models": TwoModels,
    "x_learner": XLearner,
    "joint_head": JointHead,
}
