import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.shops import Shop, end_ms, habits, shop
from training.fit.loop import Fit
from training.fit.train import write_model
from training.fit.worker import Alone
from training.history.prepare import prepare
from training.network.config import ModelConfig, TrainConfig
from training.network.model_dir import Model, load

SMALL = ModelConfig(dim=16, hidden=24, dropout=0.2)


def fit(
    folder: Path, histories: Shop, model: ModelConfig = SMALL, config: TrainConfig | None = None
) -> Fit:
    prepare(histories, cut_off_ms=end_ms(), support=5).write(folder)
    torch.set_num_threads(1)
    made = Fit(folder, model, config or TrainConfig(epochs=3, warm_up=10), Alone())
    made.run(resume=False)
    return made


@pytest.fixture(scope="session")
def histories() -> Shop:
    return shop(habits)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, histories: Shop) -> Path:
    folder = tmp_path_factory.mktemp("fused")
    # So little training that the memories add to it.
    done = fit(folder / "run", histories, config=TrainConfig(epochs=1, warm_up=10))
    write_model(folder / "run", folder / "model", done.model, done.config)
    return folder / "model"


@pytest.fixture(scope="session")
def model(model_path: Path) -> Model:
    return load(model_path)


@pytest.fixture(scope="session")
def summed(model: Model) -> Model:
    """The same model answering by the weighed sum alone, as of very many items."""
    network = copy.deepcopy(model.network)
    assert network.mixing is not None
    with torch.no_grad():
        network.mixing.shares.zero_()
        network.mixing.shares[0] = 1.0
        network.mixing.weights[1:, 0] = -1.0
    return replace(model, network=network)


@pytest.fixture(scope="session")
def stacked(tmp_path_factory: pytest.TempPathFactory, histories: Shop) -> Model:
    folder = tmp_path_factory.mktemp("stacked")
    shape = ModelConfig(recipe="stacked", dim=16)
    done = fit(folder / "run", histories, shape, TrainConfig(epochs=2))
    write_model(folder / "run", folder / "model", done.model, done.config)
    return load(folder / "model")
