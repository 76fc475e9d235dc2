"""Trains RecBole's GRU4Rec for a while and prints how many events it predicted in a second.

Run by `training.lab.studies.recbole_env` with the Python of a throw-away environment:
``recbole_gru4rec.py FOLDER ROUNDS SECONDS``, FOLDER/films/films.inter being RecBole's atomic
file. RecBole 1.2.1 asks for names that NumPy 2 no longer has and for TensorBoard, which it does
not use here; both are given to it first. The last line is JSON: events per second of each round.
"""

import json
import sys
import time
import types
from typing import Any

import numpy as np
import torch

_GONE = {
    "bool": bool, "int": int, "float": float, "object": object, "float_": np.float64,
    "complex_": np.complex128, "unicode_": np.str_,
}  # fmt: skip


def _make_way() -> None:
    for name, dtype in _GONE.items():
        if name not in np.__dict__:
            setattr(np, name, dtype)
    board: Any = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = object
    sys.modules["torch.utils.tensorboard"] = board


def main(folder: str, rounds: int, seconds: float) -> list[float]:
    """Return events per second of each round."""
    _make_way()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import GRU4Rec

    config = Config(
        model="GRU4Rec", dataset="films",
        config_dict={
            "data_path": folder, "use_gpu": False, "seed": 0, "state": "ERROR",
            "show_progress": False,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "loss_type": "CE", "train_neg_sample_args": None, "train_batch_size": 256,
            "MAX_ITEM_LIST_LENGTH": 50, "embedding_size": 64, "hidden_size": 64, "num_layers": 1,
            "checkpoint_dir": folder,
        },
    )  # fmt: skip
    torch.set_num_threads(1)
    data = data_preparation(config, create_dataset(config))[0]
    model = GRU4Rec(config, data.dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def batches() -> Any:
        while True:
            yield from data

    some, rates = batches(), list[float]()
    model.train()
    for _ in range(rounds):
        events, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            interaction = next(some)
            optimizer.zero_grad()
            model.calculate_loss(interaction).backward()
            optimizer.step()
            events += len(interaction)
        rates.append(events / took)
    return rates


if __name__ == "__main__":
    found = main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    sys.stdout.write(json.dumps(found) + "\n")
