"""The linear engagement score f(x) = Σ wᵢ·xᵢ over a user's features, with its parts shown.

The weights are configuration (``engagement_score.yaml``), not learned. A plain function, no Feast
on-demand view: a registry that carries code runs that code wherever it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from feature_repo.errors import InvalidSettingError
from feature_repo.features.catalogue import USER_VIEWS, scalars

DEFAULT: Final = Path(__file__).parent / "engagement_score.yaml"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Term(BaseModel):
    """One summand: its weight, and the value of the feature that counts for one half."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Finite
    half: Annotated[Finite, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature adds to the score: ``amount = weight · x``."""

    feature: str
    value: float
    x: float
    weight: float
    amount: float


@lru_cache(maxsize=8)
def load(path: Path = DEFAULT) -> Mapping[str, Term]:
    """Read the weights.

    Raises
    ------
    InvalidSettingError
        If the file is unreadable, a weight is no number, or a name is no scalar user feature.
    """
    try:
        terms = TypeAdapter(dict[str, Term]).validate_python(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InvalidSettingError(
            f"{path} holds no valid weights: each line is `feature: {{weight: W, half: H}}` "
            "with H > 0"
        ) from error
    known = {name for view in USER_VIEWS for name in scalars(view)}
    unknown = sorted(set(terms) - known)
    if unknown:
        raise InvalidSettingError(f"{path} weighs {unknown[0]}, which is no scalar user feature")
    return terms


def explain(
    features: Mapping[str, Any], terms: Mapping[str, Term] | None = None
) -> list[Contribution]:
    """Return what each feature adds, largest effect first; the score is the amounts' sum.

    Parameters
    ----------
    features
        Feature name to value, e.g. from ``read_user``. A missing value adds nothing.
    terms
        Weights; by default those of ``engagement_score.yaml``.

    Examples
    --------
    >>> explain({"num_carts_7d": 2}, {"num_carts_7d": Term(weight=0.5, half=2)})
    [Contribution(feature='num_carts_7d', value=2.0, x=0.5, weight=0.5, amount=0.25)]
    """
    parts = []
    for name, term in (load() if terms is None else terms).items():
        if features.get(name) is None or features[name] != features[name]:
            continue
        value = float(features[name])
        x = value / (abs(value) + term.half)
        parts.append(Contribution(name, value, x, term.weight, term.weight * x))
    return sorted(parts, key=lambda part: (-abs(part.amount), part.feature))


def score(features: Mapping[str, Any], terms: Mapping[str, Term] | None = None) -> float:
    """Return f(x) = Σ wᵢ·xᵢ.

    Examples
    --------
    >>> score({"num_carts_7d": 2}, {"num_carts_7d": Term(weight=0.5, half=2)})
    0.25
    """
    return sum(part.amount for part in explain(features, terms))
