"""Model that this process serves with, loaded once, on one thread."""

import json
from pathlib import Path
from typing import Any

import structlog

from feature_repo.errors import ModelMismatchError, NotFoundError
from services.models.transition import Transition
from services.settings import Settings

_log = structlog.get_logger(__name__)


def find_model(settings: Settings) -> Path | None:
    """Return the set model directory, else the newest below ``home/models``, else None."""
    if settings.model is not None:
        return settings.model
    folder = settings.home / "models"
    if not folder.is_dir():
        return None
    from training.network.model_dir import latest

    return latest(folder)


def load_model(settings: Settings) -> Any | None:
    """Load the chosen model; None when there is none or it does not fit.

    A service must come up without a model (it then answers from profiles and popularity);
    a model named by a setting is another matter.

    Raises
    ------
    ModelMismatchError, NotFoundError
        If the model named by ``settings.model`` cannot be used.
    """
    return try_model(settings)[0]


def try_model(settings: Settings) -> tuple[Any | None, str | None]:
    """Do what `load_model` does, and return why there is none where one was refused."""
    path = find_model(settings)
    if path is None:
        return None, None
    import torch

    from training.network.model_dir import load

    torch.set_num_threads(1)  # several threads a replica make p99 ten times worse
    try:
        return load(path), None
    except (ModelMismatchError, NotFoundError) as error:
        if settings.model is not None:
            raise
        _log.error("model_refused", path=str(path), reason=str(error))
        return None, str(error)


def load_transition(settings: Settings) -> Any | None:
    """Return the encoder's step of the chosen model, or None without a model."""
    model = load_model(settings)
    if model is None:
        return None
    from training.scoring.transition import LearnedTransition

    return LearnedTransition(model)


def load_version(settings: Settings, version: str) -> Any | None:
    """Return the model of a version from ``home/models`` or the set directory; None if gone."""
    folder = settings.home / "models"
    paths = set(folder.iterdir()) if folder.is_dir() else set()
    for path in sorted(paths | ({settings.model} if settings.model else set())):
        if version_of(path) == version:
            return load_model(settings.model_copy(update={"model": path}))
    return None


def version_of(path: Path) -> str | None:
    """Return the version that a model directory's manifest names; None if it is none."""
    try:
        found = json.loads((path / "manifest.json").read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def transition(settings: Settings) -> Transition:
    """Return f(u, x) with the chosen model as target, able to follow older rows' models."""

    def older(version: str) -> Any | None:
        try:
            model = load_version(settings, version)
        except ModelMismatchError as error:  # rows go on without it
            _log.error("model_refused", version=version, reason=str(error))
            return None
        if model is None:
            return None
        from training.scoring.transition import LearnedTransition

        return LearnedTransition(model)

    return Transition(load_transition(settings), older)
