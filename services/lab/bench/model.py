"""Model and history that the bench measures with.

Belongs here: finding or making the two. Not here: measuring.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from feature_repo.archive.event_archive import Archive
from services.lab.bench.load import OfferedLoad, offers

UNTRAINED: Final = "untrained (default shape)"

Tell = Callable[[int, int, str], None]


def archive_of(data: Path | None, folder: Path, tell: Tell) -> Archive:
    """Return the archive of ``data``; without one, Complete Journey imported below ``folder``."""
    if data is not None and (data / "archive" / "events").is_dir():
        found = Archive(data / "archive" / "events")
        if not found.empty():
            return found
    from feature_repo import importers

    home = folder / "complete-journey"
    importers.run("completejourney", home=home, progress=tell)
    return Archive(home / "archive" / "events")


def model_of(
    model: Path | None, data: Path | None, archive: Archive, folder: Path
) -> tuple[Path, str]:
    """Return a model directory and its label: the named one, the data home's newest, or a new one.

    A new one has the product's default shape, the archive's vocabulary and random weights:
    it predicts nothing and costs exactly what a trained one costs.
    """
    from services.models import folder as models
    from training.network.model_dir import load

    made = None if data is None else models.newest(data)
    found = model or (None if made is None else made.path)
    if found is not None:
        return found, load(found).version
    return write_untrained(archive, folder / "model"), UNTRAINED


def write_untrained(archive: Archive, path: Path) -> Path:
    """Write a model directory with random weights (seed 0) for an archive's vocabulary."""
    import torch

    from training.history.sequences import encode
    from training.history.user_features import UserFeatures
    from training.history.vocabulary import build_vocabulary
    from training.neighbours.channels import Channels
    from training.network.config import ModelConfig
    from training.network.model_dir import save
    from training.network.network import PortraitNetwork

    vocabulary = build_vocabulary(archive.histories(), until_ms=2**53)
    torch.manual_seed(0)
    network = PortraitNetwork(
        ModelConfig(), len(vocabulary.items), len(vocabulary.categories), 0
    )  # fmt: skip
    network.start_from(vocabulary)
    histories = encode(archive.histories(), vocabulary)
    memory = Channels.fit(histories, 2**53, len(vocabulary.items))
    return save(
        path, network, vocabulary, UserFeatures.none(), memory=memory, training={}, metrics={}
    )


def offers_of(vocabulary: Any) -> list[OfferedLoad]:
    """Return offers for the items that a model knows, in its own categories."""
    names = ("", *vocabulary.categories)
    return offers(vocabulary.items, [names[row] for row in vocabulary.item_category])
