"""Model directories below the state folder: their names, and what their manifests say.

Belongs here: which there are, without loading one. Not here: which is in service (`registry`), and
loading (`loaded`). A file's date means nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

FOLDER: Final = "models"
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""Names of models: those of their directories."""
_NAME: Final = re.compile(NAME)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model directory with a manifest.

    Attributes
    ----------
    name
        Of the directory.
    version
        As the manifest says; kept in every state that the model makes.
    """

    name: str
    version: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def created_ms(self) -> int:
        """When it was made, epoch milliseconds; in manifests of before, when its data ends."""
        training = self.manifest.get("training")
        known = training if isinstance(training, Mapping) else {}
        for text in (self.manifest.get("created_at"), known.get("validated_until")):
            if isinstance(text, str):
                try:
                    return round(datetime.fromisoformat(text).timestamp() * 1000)
                except ValueError:
                    continue
        return 0


def list_models(home: Path) -> list[StoredModel]:
    """Return the models below a state folder, by name."""
    folder = home / FOLDER
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [found for path in paths if (found := read(path)) is not None]


def find(home: Path, name: str) -> StoredModel | None:
    """Return a model by its name; None if there is none."""
    return read(home / FOLDER / name) if _NAME.fullmatch(name) else None


def find_version(home: Path, version: str) -> StoredModel | None:
    """Return a model by its version; None if there is none."""
    return next((each for each in list_models(home) if each.version == version), None)


def newest(home: Path) -> StoredModel | None:
    """Return the model that was made last, as the manifests say; None without one."""
    return max(list_models(home), key=lambda each: (each.created_ms, each.name), default=None)


def read(path: Path) -> StoredModel | None:
    """Return the model of a directory; None if that is none."""
    if path.name.startswith("."):  # in the making
        return None
    try:
        manifest = orjson.loads((path / "manifest.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    version = manifest.get("version") if isinstance(manifest, dict) else None
    return StoredModel(path.name, version, path, manifest) if isinstance(version, str) else None
