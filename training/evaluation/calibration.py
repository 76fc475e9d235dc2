"""Calibration of the outcomes' probabilities on labels that training has not seen.

Platt's: ``p = σ(α·logit + β)`` by maximum likelihood (Platt, "Probabilistic Outputs for Support
Vector Machines", 1999, without his smoothing). Two numbers an outcome, and two for all next
categories together, kept in the network.
"""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from training.evaluation.category_window import ask, moments_inside
from training.evaluation.predict import score_window
from training.history.prepared import Prepared
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.network import PortraitNetwork

FEWEST: Final = 50
"""Labels of either kind that are needed, else an outcome stays as it is."""
NEXT_CATEGORY: Final = "next_category_14d"
MAX_LABELS: Final = 500_000
"""Most probabilities of categories that are laid together."""


def calibrate(network: PortraitNetwork, prepared: Prepared) -> dict[str, dict[str, float]]:
    """Set the network's calibration by the outcomes whose days end in the validation period.

    Returns
    -------
    dict
        By calibrated outcome, `NEXT_CATEGORY` among them: ``moments``, ``log_loss_before`` and
        ``log_loss_after``.
    """
    maker = ExampleMaker(prepared, network.config, TrainConfig())
    users = np.arange(len(prepared.histories.users))
    bounds = prepared.train_until_ms, prepared.until_ms
    scored = score_window(network, maker, users, bounds, timed=True, ranked=False)
    told = {}
    for k, name in enumerate(network.outcomes):
        labels, probabilities = scored.select_known(k)
        logits = torch.special.logit(torch.from_numpy(probabilities).double(), eps=1e-6).numpy()
        found = _set(network.calibration[k], logits, labels)
        if found is not None:
            told[name] = {"moments": float(len(labels)), **found}
    head = network.next_category
    if head is not None:
        rows = moments_inside(maker, *bounds)
        rows = rows[:: max(1, -(-len(rows) * head.categories // MAX_LABELS))]
        answers = list(ask(network, maker, rows))
        if answers:
            logits = torch.cat([each.logits.flatten() for each in answers]).double().numpy()
            labels = torch.cat([each.labels().flatten() for each in answers]).numpy()
            found = _set(head.calibration, logits, labels)
            if found is not None:
                told[NEXT_CATEGORY] = {"moments": float(len(rows)), **found}
    return told


def _set(calibration: Tensor, logits: Any, labels: Any) -> dict[str, float] | None:
    """Write Platt's two numbers, and return what they do; None: too few labels, left alone."""
    if min(int(labels.sum()), int((1 - labels).sum())) < FEWEST:
        return None
    scale, shift = platt(logits, labels)
    if scale <= 0:  # the order would turn round: what was learned does not hold here
        return None
    with torch.no_grad():
        calibration.copy_(torch.tensor([scale, shift]))
    return {
        "log_loss_before": log_loss(labels, logits),
        "log_loss_after": log_loss(labels, scale * logits + shift),
    }


def platt(logits: Any, labels: Any) -> tuple[float, float]:
    """Return the scale α and shift β of greatest likelihood.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true = rng.normal(size=20_000)
    >>> labels = rng.random(20_000) < 1 / (1 + np.exp(-true))
    >>> scale, shift = platt(3 * true + 1, labels)
    >>> abs(scale - 1 / 3) < 0.02, abs(shift + 1 / 3) < 0.05
    (True, True)
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf).fit(np.asarray(logits).reshape(-1, 1), labels)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def log_loss(labels: Any, logits: Any) -> float:
    """Return the mean negative log-likelihood."""
    signed = np.where(np.asarray(labels) > 0, logits, -np.asarray(logits))
    return float(np.logaddexp(0.0, -signed).mean())
