"""Answers about models, for the API's description; see `services.http.answer_schemas`."""

from typing import Annotated, Any, Final

from pydantic import Field

from feature_repo.profile_views.shapes import Answer, Count, Open
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME


class ListedModel(Open):
    """A model below the state folder."""

    name: str
    version: str
    aliases: list[str]
    in_use: Annotated[bool, Field(description="Whether the gateway that answers serves with it")]
    refused: Annotated[str | None, Field(description="Why it could not be loaded")]
    recipe: str | None
    created_at: str | None


class EncodingProgress(Answer):
    """Rows by the model that they follow, as updaters counted them last."""

    target: Annotated[str | None, Field(description="Version that all rows are to follow")]
    rows: Count
    left: Annotated[Count, Field(description="Rows still to be encoded anew")]
    short: Annotated[Count, Field(description="Rows that cannot be: part of their history is gone")]
    at: Annotated[str | None, Field(description="When the first partition of them was counted")]
    by_model: Annotated[dict[str, Count], Field(description="Rows by version; empty: no model")]


class ModelList(Answer):
    """The models, which have aliases, and which one the gateway that answers serves with."""

    models: list[ListedModel]
    production: str | None
    shadow: str | None
    candidate: str | None
    previous: Annotated[str | None, Field(description="What a rollback makes production")]
    in_use: Annotated[str | None, Field(description="Version that the gateway serves with")]
    encoding: EncodingProgress


class ErasuresSince(Answer):
    """Erasures that were done after a model was made."""

    erasures: Count
    users: Annotated[Count, Field(description="Ids that they named")]
    last_at: str | None


class ModelCard(Answer):
    """What a model was made of and how good it is."""

    name: str
    version: str
    aliases: list[str]
    recipe: str | None
    created_at: str | None
    git_revision: str | None
    data: Annotated[dict[str, Any], Field(description="Where training ended, and its sizes")]
    features: dict[str, Any]
    metrics: Annotated[
        dict[str, Any], Field(description="Of validation; `test`, with intervals, if evaluated")
    ]
    calibration: dict[str, Any]
    ablations: Annotated[dict[str, Any], Field(description="What each part gained on validation")]
    erasures_since: ErasuresSince
    files: Annotated[dict[str, str], Field(description="SHA-256 of each file")]
    sha256: str


class ModelMoved(Answer):
    """The aliases after a change, and what was production before it."""

    production: str | None
    previous: str | None
    shadow: str | None
    candidate: str | None


_LISTED: Final[dict[str, Any]] = {
    "name": "fused-20171218-7", "version": "fused-9f86d081884c", "aliases": ["production"],
    "in_use": True, "refused": None, "recipe": "fused", "created_at": EXAMPLE_TIME,
}  # fmt: skip
_ALIASES: Final = {"production": "fused-20171218-7", "shadow": None, "candidate": None}
_CARD: Final[dict[str, Any]] = {
    "name": "fused-20171218-7", "version": "fused-9f86d081884c", "aliases": ["production"],
    "recipe": "fused", "created_at": EXAMPLE_TIME, "git_revision": None,
    "data": {"train_until": EXAMPLE_TIME, "events": 1440764},
    "features": {"service": "ranking_v1", "user_features": ["rfm_recency_days"],
                 "inputs": {"events": ["view_item"], "numeric": ["items"], "pair": ["count"]}},
    "metrics": {"validation_ndcg@10": 0.2702, "epochs": 5, "test": None},
    "calibration": {}, "ablations": {"reranker": {"gain": 0.006, "gain_at_least": 0.003}},
    "erasures_since": {"erasures": 0, "users": 0, "last_at": None},
    "files": {"weights.safetensors": "9f86d081884c7d65"}, "sha256": "2c26b46b68ffc68f",
}  # fmt: skip
LIST: Final[dict[int | str, Any]] = {
    200: describe_answer(
        ModelList, "The models and their aliases",
        {"models": [_LISTED], **_ALIASES, "previous": None, "in_use": "fused-9f86d081884c",
         "encoding": {"target": "fused-9f86d081884c", "rows": 1724, "left": 12, "short": 0,
                      "at": EXAMPLE_TIME, "by_model": {"fused-9f86d081884c": 1712}}},
    ),
}  # fmt: skip
CARD: Final[dict[int | str, Any]] = {200: describe_answer(ModelCard, "The card", _CARD)}
CARD[200]["content"]["text/markdown"] = {"example": "# Model fused-20171218-7\n"}
MOVED: Final[dict[int | str, Any]] = {
    200: describe_answer(
        ModelMoved, "The aliases now, and what was production before",
        {**_ALIASES, "previous": "fused-20171211-7"},
    ),
}  # fmt: skip
