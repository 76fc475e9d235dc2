"""Models of a process: the one it begins with, loaded on one thread, and older ones by version."""

from pathlib import Path
from typing import Any

import structlog

from feature_repo.errors import ModelMismatchError, StoreUnavailableError
from services.models import folder, registry
from services.models.registry import Aliases
from services.models.transition import Transition
from services.settings import Settings

_log = structlog.get_logger(__name__)


def choose(settings: Settings, aliases: Aliases) -> Path | None:
    """Return the set model directory, else that of the production model; None without."""
    return settings.model or registry.path_of(settings.home, aliases.production)


def pin(settings: Settings, client: Any) -> Settings:
    """Return settings that name the model that is production now, if there is one.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer.
    """
    if settings.model is not None:
        return settings
    path = choose(settings, registry.adopt(client, settings.home))
    return settings if path is None else settings.model_copy(update={"model": path})


def load(path: Path) -> Any:
    """Load a model; `ModelMismatchError` if it does not fit."""
    import torch

    from training.network.model_dir import load as load_directory

    torch.set_num_threads(1)  # several threads a replica make p99 ten times worse
    return load_directory(path)


def load_model(settings: Settings) -> Any | None:
    """Load the model that the settings name; None without.

    Raises
    ------
    ModelMismatchError
        If it cannot be used.
    """
    return None if settings.model is None else load(settings.model)


def load_transition(settings: Settings) -> Any | None:
    """Return the encoder's step of the model that the settings name; None without."""
    model = load_model(settings)
    return None if model is None else step_of(model)


def step_of(model: Any) -> Any:
    """Return the encoder's step of a loaded model."""
    from training.scoring.transition import LearnedTransition

    return LearnedTransition(model)


def load_version(settings: Settings, version: str) -> Any | None:
    """Return the model of a version from ``home/models`` or the set directory; None if gone."""
    named = None if settings.model is None else folder.read(settings.model)
    if named is None or named.version != version:
        named = folder.find_version(settings.home, version)
    return None if named is None else load(named.path)


def version_of(path: Path) -> str | None:
    """Return the version that a model directory's manifest names; None if it is none."""
    found = folder.read(path)
    return None if found is None else found.version


def transition(settings: Settings) -> Transition:
    """Return f(u, x) with the model that the settings name, able to follow older rows' models."""

    def older(version: str) -> Any | None:
        try:
            model = load_version(settings, version)
        except ModelMismatchError as error:  # rows go on without it
            _log.error("model_refused", version=version, reason=str(error))
            return None
        return None if model is None else step_of(model)

    return Transition(load_transition(settings), older)


def begin(settings: Settings, client: Any) -> Transition:
    """Return f(u, x) with the production model; without one, or if it does not fit, with none.

    Raises
    ------
    ModelMismatchError
        If the settings name a model that does not fit.
    """
    if settings.model is not None:
        return transition(settings)
    try:
        return transition(pin(settings, client))
    except ModelMismatchError as error:
        _log.error("model_refused", reason=str(error))
    except StoreUnavailableError as error:  # what follows the aliases takes it up later
        _log.warning("aliases_unread", error=str(error))
    return transition(settings)
