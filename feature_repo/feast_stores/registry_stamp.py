"""Registry stamp: whether Feast's registry says what the definitions say, without Feast.

Importing Feast and comparing all objects takes most of a service's start; a service that starts
again with the same code in the same place need not. Not here: applying (`store`).
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Final

from feature_repo.features.catalogue import VIEWS

_FOLDER: Final = Path(__file__).parents[1]


def is_current(home: Path) -> bool:
    """Say whether the registry below ``home`` was applied by this very code, and is still there."""
    try:
        noted = _note(home).read_text()
        registry = (home / "registry.db").read_bytes()
    except OSError:
        return False
    return noted == _stamp(home) and all(view.encode() in registry for view in VIEWS)


def note(home: Path) -> None:
    """Note that the registry has just been applied."""
    _note(home).write_text(_stamp(home))


def _note(home: Path) -> Path:
    return home / "registry.applied"


def _stamp(home: Path) -> str:
    """Return what the registry's content follows from: code, Feast's version and the paths."""
    digest = hashlib.sha256(f"{version('feast')} {home.resolve()} ".encode())
    for path in sorted((*_FOLDER.glob("*.py"), *_FOLDER.glob("*.yaml"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
