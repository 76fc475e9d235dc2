"""The model directory: weights, vocabulary and a manifest that proves they belong together.

::

    <name>/manifest.json        schema, recipe, config, features, metrics, SHA-256 of each file
    <name>/weights.safetensors
    <name>/vocabulary.json
    <name>/memory.safetensors   item-item rows (`neighbours.channels`), where the model has any
    <name>/trees.txt            of the reranker, where the model has one

A directory appears whole (temporary folder, fsync, rename) and is never changed. Loading
checks every byte; a model that does not fit is refused with the reason.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn import Embedding

from feature_repo.errors import ModelMismatchError
from feature_repo.events.schema import iso, now_ms
from feature_repo.events.types import CONSUMED
from feature_repo.features.catalogue import USER_VIEWS, scalars
from training.history.sequences import NUMERIC
from training.history.user_features import UserFeatures
from training.history.vocabulary import Vocabulary
from training.neighbours.channels import Channels
from training.network import live_popularity
from training.network.config import ModelConfig
from training.network.network import PortraitNetwork
from training.network.reranker import Reranker
from training.state.pair_features import FEATURES

SCHEMA: Final = 5
_MEMORY: Final = "memory.safetensors"
_TREES: Final = "trees.txt"


@dataclass(frozen=True)
class Model:
    """A loaded model, in evaluation mode on the CPU.

    Attributes
    ----------
    version
        ``<recipe>-<12 hex digits>``, from the hash of weights, vocabulary, config and
        features; kept in every state it makes.
    """

    version: str
    config: ModelConfig
    vocabulary: Vocabulary
    user_features: UserFeatures
    network: PortraitNetwork
    manifest: Mapping[str, Any]
    memory: Channels | None = None
    reranker: Reranker | None = None


def save(
    path: Path,
    network: PortraitNetwork,
    vocabulary: Vocabulary,
    user_features: UserFeatures,
    *,
    memory: Channels | None = None,
    reranker: Reranker | None = None,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Write a model directory.

    Parameters
    ----------
    path
        Must not exist yet.
    memory
        That of the training period, where the network mixes one in.
    reranker
        Where it pays.
    training
        Window, seed and settings of the run, as plain values.
    metrics
        Validation figures, as plain values.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    files = {"weights.safetensors": save_tensors(weights), "vocabulary.json": vocabulary.encode()}
    if memory is not None:
        files[_MEMORY] = save_arrays(memory.arrays())
    if reranker is not None:
        files[_TREES] = reranker.trees.encode()
    inputs = _inputs(vocabulary.types)
    manifest = {
        "schema": SCHEMA,
        "recipe": network.config.recipe,
        "version": _version(network.config, user_features, files, inputs),
        "config": network.config.values(),
        "inputs": inputs,
        "feature_service": user_features.service,
        "user_features": user_features.values(),
        "created_at": iso(now_ms()),
        "git_revision": git_revision(),
        "training": dict(training),
        "metrics": dict(metrics),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    text = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, data in {**files, "manifest.json": text}.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def load(path: Path) -> Model:
    """Read and check a model directory.

    Raises
    ------
    ModelMismatchError
        If a file is missing or differs from its SHA-256, or the schema, recipe, inputs,
        config, features or shapes do not fit this code.
    """
    manifest = _manifest(path)
    try:
        sums, recipe = dict(manifest["files"]), manifest["recipe"]
        config = ModelConfig.read({**manifest["config"], "recipe": recipe})
        user_features = UserFeatures.read(manifest["user_features"])
    except (KeyError, TypeError) as error:
        raise ModelMismatchError(f"{path / 'manifest.json'} lacks {error}") from error
    inputs = manifest.get("inputs")
    types = next((n for n in range(1, len(CONSUMED) + 1) if _inputs(n) == inputs), 0)
    if types == 0:
        raise ModelMismatchError(
            f"{path} was trained on other inputs than this code makes: train it again"
        )
    check_features(user_features, path)
    names = ["weights.safetensors", "vocabulary.json", *(n for n in (_MEMORY, _TREES) if n in sums)]
    files = {name: _read_checked(path / name, sums.get(name)) for name in names}
    if manifest.get("version") != _version(config, user_features, files, inputs):
        raise ModelMismatchError(
            f"{path}: the manifest's version {manifest.get('version')} is not that of its files, "
            "config and features"
        )
    vocabulary = replace(Vocabulary.decode(files["vocabulary.json"]), types=types)
    network = PortraitNetwork(
        config, len(vocabulary.items), len(vocabulary.categories), len(user_features.names)
    )
    network.start_from(vocabulary)
    if types < len(CONSUMED):
        network.encoder.content.kind = Embedding(types, config.dim)
    try:
        weights = load_tensors(files["weights.safetensors"])
        if network.live is not None:  # a model made before it has no live popularity
            for name in live_popularity.NAMES:
                weights.setdefault(name, network.state_dict()[name])
        network.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        raise ModelMismatchError(
            f"{path}: the weights do not fit the vocabulary, features or config: "
            f"{str(error).splitlines()[0]}"
        ) from error
    network.freeze()
    memory = _memory(files[_MEMORY], vocabulary, path) if _MEMORY in files else None
    reranker = Reranker(files[_TREES].decode(), vocabulary) if _TREES in files else None
    return Model(
        manifest["version"], config, vocabulary, user_features, network, manifest, memory, reranker
    )  # fmt: skip


def check_features(needed: UserFeatures, path: Path) -> None:
    """Refuse a model with user features that this code does not make: it would read each as 0.

    Raises
    ------
    ModelMismatchError
        Naming the missing features.
    """
    made = {name for view in USER_VIEWS for name in scalars(view)}
    missing = [name for name in needed.names if name not in made]
    if missing:
        raise ModelMismatchError(
            f"{path} reads the features {', '.join(sorted(missing))}, which this version does not "
            "make: train it again (portrait train)"
        )


def git_revision() -> str | None:
    """Return the commit of the source tree, None outside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _memory(data: bytes, vocabulary: Vocabulary, path: Path) -> Channels:
    try:
        memory = Channels.from_arrays(load_arrays(data))
    except (KeyError, SafetensorError) as error:
        raise ModelMismatchError(f"{path / _MEMORY} cannot be read: train it again") from error
    if any(len(table.indptr) != len(vocabulary.items) + 1 for table in memory.tables.values()):
        raise ModelMismatchError(f"{path / _MEMORY} does not fit the vocabulary: train it again")
    return memory


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = orjson.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise ModelMismatchError(f"{path} has no manifest.json: not a model directory") from None
    except orjson.JSONDecodeError as error:
        raise ModelMismatchError(f"{path / 'manifest.json'} is not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ModelMismatchError(
            f"{path} has schema {found}, this code reads {SCHEMA}: train it again"
        )
    return manifest


def _read_checked(path: Path, expected: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelMismatchError(f"{path} is missing") from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ModelMismatchError(
            f"{path} is damaged: its SHA-256 is {found[:12]}…, the manifest says "
            f"{str(expected)[:12]}…"
        )
    return data


def _inputs(types: int) -> dict[str, list[str]]:
    """Return what a model reads that was trained when `CONSUMED` had so many types."""
    return {"events": list(CONSUMED[:types]), "numeric": list(NUMERIC), "pair": list(FEATURES)}


def _version(
    config: ModelConfig, features: UserFeatures, files: Mapping[str, bytes], inputs: Any
) -> str:
    about = {"config": config.values(), "features": features.values(), "inputs": inputs}
    digest = hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS))
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    return f"{config.recipe}-{digest.hexdigest()[:12]}"
