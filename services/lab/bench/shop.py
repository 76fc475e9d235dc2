"""A made-up shop of any size for the recommendation bench: catalogue, model, users.

The model has the product's default shape and random weights: it predicts nothing and costs
what a trained one costs, its memories' rows and the feature service's user features included.
Belongs here: what is served. Not here: what is measured (`recommend`).
"""

import random
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from services.lab.bench.load import OfferedLoad

DEPARTMENTS: Final = 20
SHELVES: Final = 300
BRANDS: Final = 400
ROW_ENTRIES: Final = 100
"""Entries of each of the memories' rows …"""
MOST_ENTRIES: Final = 20_000_000
"""… and of all together, which a million items reach."""
SERVICE: Final = "ranking_v1"


def shop_offers(items: int) -> list[OfferedLoad]:
    """Return a catalogue of this size; the first are the most popular."""
    draw = random.Random("shop")  # noqa: S311 - a load, not a secret
    found = []
    for n in range(items):
        shelf = draw.randrange(SHELVES)
        found.append(
            OfferedLoad(
                f"item-{n:06d}", f"Room {shelf % DEPARTMENTS}/Shelf {shelf}/Kind {shelf}-{n % 3}",
                f"Brand {draw.randrange(BRANDS)}", draw.randrange(50, 5000) / 100,
            )
        )  # fmt: skip
    return found


def catalogue_of(offered: list[OfferedLoad]) -> dict[str, bytes]:
    """Return the catalogue as `services.catalogue.catalogue.load` takes it."""
    return {
        offer.item_id: orjson.dumps(offer.line() | {"title": f"Thing {offer.item_id}"})
        for offer in offered
    }


def write_model(offered: list[OfferedLoad], path: Path) -> Path:
    """Write a model directory that knows all offers."""
    import torch

    from training.neighbours.channels import ROW_TYPES, Channels, ChannelTable
    from training.network.config import ModelConfig
    from training.network.model_dir import save
    from training.network.network import PortraitNetwork

    vocabulary = _vocabulary(offered)
    size, draw = len(vocabulary.items), np.random.default_rng(0)
    torch.manual_seed(0)
    features = _features()
    network = PortraitNetwork(
        ModelConfig(), size, len(vocabulary.categories), len(features.names)
    )  # fmt: skip
    network.start_from(vocabulary)
    assert network.mixing is not None
    with torch.no_grad():
        network.mixing.weights[1:, 0] = -2.0
    width = min(ROW_ENTRIES, MOST_ENTRIES // size)
    indptr = np.arange(0, size * width + 1, width)
    tables = {
        name: ChannelTable(
            indptr,
            np.sort(draw.integers(0, size, (size, width)), axis=1).astype(np.int32).ravel(),
            draw.random(size * width).astype(np.float16).astype(np.float32),
        )
        for name in ROW_TYPES
    }
    memory = Channels(tables, np.stack([vocabulary.log_popularity, vocabulary.log_support]))
    return save(path, network, vocabulary, features, memory=memory, training={}, metrics={})


def feature_fields() -> dict[bytes, bytes]:
    """Return the hash fields of a user's batch features, in Feast's layout."""
    from feast.protos.feast.types.Value_pb2 import Value

    from feature_repo.features.catalogue import USER_VIEWS, VIEWS
    from feature_repo.online.live_row import field_key

    found = {}
    for view in USER_VIEWS:
        for feature in VIEWS[view]:
            if feature.dtype == "int":
                found[field_key(view, feature.name)] = Value(int64_val=3).SerializeToString()
            elif feature.dtype == "float":
                found[field_key(view, feature.name)] = Value(double_val=1.5).SerializeToString()
    return found


def _features() -> Any:
    from feature_repo.features.catalogue import USER_VIEWS, VIEWS
    from training.history.user_features import UserFeatures

    names = [
        feature.name for view in USER_VIEWS for feature in VIEWS[view]
        if feature.dtype in ("int", "float")
    ]  # fmt: skip
    ones = [1.0] * len(names)
    return UserFeatures(SERVICE, tuple(names), tuple(ones), tuple(ones))


def _vocabulary(offered: list[OfferedLoad]) -> Any:
    from training.history.vocabulary import Vocabulary, category_key

    keys = [category_key(offer.category) for offer in offered]
    categories = tuple(sorted(set(keys)))
    row = {name: n + 1 for n, name in enumerate(categories)}
    counts = 1000.0 / np.arange(1, len(offered) + 1)
    logs = np.log(counts + 0.5)
    popularity = (logs - logs.mean()).astype(np.float32)
    return Vocabulary(
        items=tuple(offer.item_id for offer in offered),
        categories=categories,
        item_category=np.array([row[key] for key in keys], np.int64),
        log_popularity=popularity,
        log_support=popularity,
        median_gap_days=np.full(len(offered), 20.0, np.float32),
        target="purchase",
    )
