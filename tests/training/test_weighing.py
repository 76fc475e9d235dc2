"""Memories are kept where they pay, and only there."""

import pytest
import torch

from tests.training.conftest import SMALL
from tests.training.shops import Shop, cyclic, end_ms, shop, uniform
from training import weighing
from training.loop import new_network
from training.model_dir import Model
from training.network import PortraitNetwork
from training.prepare import prepare
from training.prepared import Prepared
from training.weighing import weigh


def fresh(histories: Shop) -> tuple[PortraitNetwork, Prepared]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    prepared = prepare(histories, cut_off_ms=end_ms(), support=5)
    return new_network(prepared, SMALL), prepared


@pytest.mark.parametrize("full_items", [4000, 5])
def test_where_order_says_it_all_they_stay(
    full_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the weights are fitted on all items or on draws of them."""
    monkeypatch.setattr(weighing, "FULL_ITEMS", full_items)
    monkeypatch.setattr(weighing, "DRAWS", 6)
    network, prepared = fresh(shop(cyclic))
    memory, told = weigh(network, prepared)
    assert memory is not None
    assert told is not None
    assert told["used"] == 1
    assert told["gain"] > told["gain_at_least"] > 0.2
    assert told["mixed"] < told["network"]
    assert network.config.memory


def test_where_there_is_nothing_to_know_they_go() -> None:
    network, prepared = fresh(shop(uniform))
    memory, told = weigh(network, prepared)
    assert memory is None
    assert told is not None
    assert told["used"] == 0
    assert told["gain_at_least"] <= 0
    assert network.mixing is None
    assert not network.config.memory


def test_a_network_without_is_left_alone(stacked: Model) -> None:
    prepared = prepare(shop(uniform), cut_off_ms=end_ms(), support=5)
    assert weigh(stacked.network, prepared) == (None, None)
