"""Configuration of a model and of its fit, as two frozen dataclasses.

Every field is used; what is decided by the data (vocabulary, statistics) is not here.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from feature_repo.errors import InvalidSettingError, ModelMismatchError

Recipe = Literal["fused", "stacked"]
RECIPES: Final[tuple[str, ...]] = get_args(Recipe)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a network.

    Parameters
    ----------
    recipe
        ``fused`` (CNN beside LSTM, all heads) or ``stacked`` (Conv1D → LSTM → Dense).
    dim
        Width of embeddings and of the profile vector.
    hidden
        Units of the LSTM of ``fused``; ``stacked`` always has 100.
    capacity
        Most items that one user's repeat table holds, ≥ 200 (the largest basket).
    dropout
        Share of inputs and profile entries dropped in training.
    encoder, repeat, memory
        False leaves the part out: an ablation, never the product's default.
    """

    recipe: str = "fused"
    dim: int = 64
    hidden: int = 64
    capacity: int = 200
    dropout: float = 0.4
    encoder: bool = True
    repeat: bool = True
    memory: bool = True

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InvalidSettingError(
                f"recipe {self.recipe!r} is unknown: choose one of {', '.join(RECIPES)}"
            )
        if self.capacity < 200:
            raise InvalidSettingError(
                f"capacity is {self.capacity}: at least 200, the largest basket"
            )

    @classmethod
    def read(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read a manifest's config; `ModelMismatchError` if a field or the recipe is not known."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ModelMismatchError(
                f"the model's config has the fields {sorted(values)}, this code {sorted(known)}: "
                "train it again"
            )
        try:
            return cls(**values)
        except InvalidSettingError as error:
            raise ModelMismatchError(str(error)) from error

    def values(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a network is fitted.

    Parameters
    ----------
    epochs
        Upper bound; fitting stops earlier after ``patience`` epochs without a better
        validation score.
    seed
        Fixes initial weights, batches, dropout and sampled positions.
    batch_users
        Histories in one global batch, shared out among the workers; None takes one in 256 of all
        that are learned from, at least 16 and at most 128.
    positions
        Most positions per history and epoch at which the next basket is predicted.
    moments
        Most weekly moments per history and epoch at which outcomes are predicted.
    learning_rate
        AdamW's for ``fused``, times ``decay`` an epoch; ``stacked`` has Adam at 1e-3.
    average
        Decay of the running average of weights that is validated and kept.
    request_time
        Share of positions that see the time at which the recommendation is asked for.
    outcome_weight, category_weight
        Weights of the losses of outcomes and of the next category beside the basket's.
    """

    epochs: int = 8
    patience: int = 2
    seed: int = 7
    batch_users: int | None = None
    positions: int = 20
    moments: int = 6
    learning_rate: float = 2e-3
    decay: float = 0.85
    weight_decay: float = 1e-4
    average: float = 0.995
    warm_up: int = 100
    request_time: float = 0.5
    outcome_weight: float = 0.3
    category_weight: float = 0.3
    validation_users: int = 1500
