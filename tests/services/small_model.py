"""A model with random weights over a few items: as good as a trained one to test what follows."""

from pathlib import Path

import numpy as np
import torch

from feature_repo.events.schema import EventRecord, ItemRecord
from training.history.user_features import UserFeatures
from training.history.vocabulary import Vocabulary
from training.neighbours.channels import ROW_TYPES, Channels, ChannelTable
from training.network.config import ModelConfig
from training.network.model_dir import Model, load, save
from training.network.network import PortraitNetwork

ITEMS = tuple(f"i{n:02d}" for n in range(40))
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def category(item: str) -> str:
    return f"D{int(item[1:]) % 3}/S{int(item[1:]) % 6}"


def write(path: Path, seed: int = 0, *, memory: bool = True) -> Path:
    draw = np.random.default_rng(seed)
    size = len(ITEMS)
    categories = tuple(sorted({category(item) for item in ITEMS}))
    popularity = np.linspace(1, -1, size).astype(np.float32)
    vocabulary = Vocabulary(
        ITEMS, categories,
        np.array([categories.index(category(item)) + 1 for item in ITEMS]),
        popularity, popularity, np.full(size, 20, np.float32), "purchase",
    )  # fmt: skip
    torch.manual_seed(seed)
    config = ModelConfig(dim=16, hidden=24, memory=memory)
    network = PortraitNetwork(config, size, len(categories), 0)
    network.start_from(vocabulary)
    with torch.no_grad():
        network.output.weight.normal_()
        if network.mixing is not None:
            network.mixing.weights[1:, 0] = 0.0
    tables = {}
    for kind in ROW_TYPES:
        chosen = np.stack([np.sort(draw.choice(size, 8, replace=False)) for _ in ITEMS])
        value = draw.normal(size=size * 8).astype(np.float16).astype(np.float32)
        indptr = np.arange(0, size * 8 + 1, 8)
        tables[kind] = ChannelTable(indptr, chosen.ravel().astype(np.int32), value)
    rows = Channels(tables, draw.normal(size=(2, size)).astype(np.float32)) if memory else None
    return save(
        path, network, vocabulary, UserFeatures.none(), memory=rows, training={}, metrics={}
    )


def make(folder: Path, seed: int = 0, *, memory: bool = True) -> Model:
    return load(write(folder / f"model-{seed}", seed, memory=memory))


def bought(number: int, *items: str, time_ms: int | None = None) -> EventRecord:
    at = NOW_MS - (30 - number) * DAY_MS if time_ms is None else time_ms
    lines = [ItemRecord(i, price=2.0, category=category(i)) for i in items]
    return EventRecord(
        id=f"e{number}", type="purchase", user="{p000}u", time_ms=at, received_ms=at,
        items=lines, order_id=str(number),
    )  # fmt: skip


HISTORY = [bought(n, ITEMS[(7 * n) % 40], ITEMS[(3 * n + 1) % 40]) for n in range(12)]
