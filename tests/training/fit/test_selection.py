"""Memories are kept where they pay, and only there."""

from dataclasses import replace

import pytest
import torch

from tests.training.conftest import SMALL
from tests.training.shops import Shop, cyclic, end_ms, habits, shop, uniform
from training.fit import selection
from training.fit.loop import new_network
from training.fit.selection import weigh
from training.history.prepare import prepare
from training.history.prepared import Prepared
from training.neighbours.channels import COUNT
from training.network.config import ModelConfig
from training.network.mixture import EVIDENCE
from training.network.model_dir import Model
from training.network.network import PortraitNetwork


def fresh(histories: Shop, config: ModelConfig = SMALL) -> tuple[PortraitNetwork, Prepared]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    prepared = prepare(histories, cut_off_ms=end_ms(), support=5)
    return new_network(prepared, config), prepared


def popular_only(histories: Shop) -> tuple[PortraitNetwork, Prepared]:
    """A network that knows what is popular, and nothing of who asks."""
    network, prepared = fresh(histories, replace(SMALL, repeat=False))
    with torch.no_grad():
        for name, table in network.item_tables().items():
            if name != "bias.weight":
                table.weight.zero_()
    return network, prepared


@pytest.mark.parametrize("full_items", [4000, 5])
def test_where_order_says_it_all_they_stay(
    full_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the weights are fitted on all items or on draws of them."""
    monkeypatch.setattr(selection, "DENSE_ITEMS", full_items)
    monkeypatch.setattr(selection, "DRAWS", 6)
    network, prepared = fresh(shop(cyclic))
    memory, told = weigh(network, prepared)
    assert memory is not None
    assert told is not None
    assert told["used"] == told["added"] == 1
    assert told["gain"] > told["gain_at_least"] > 0.2
    assert told["mixed"] < told["network"]
    assert network.config.memory


def test_where_the_network_knows_all_there_is_they_go() -> None:
    network, prepared = popular_only(shop(uniform))
    memory, told = weigh(network, prepared)
    assert memory is None
    assert told is not None
    assert told["used"] == told["added"] == told["mixture"] == 0
    assert told["gain_at_least"] <= 0
    assert told["mixture_likelihood_at_least"] <= 0
    assert network.mixing is None
    assert not network.config.memory


def test_what_a_network_does_not_know_of_is_mixed_in() -> None:
    """In a shop of habits what is held is evidence, more than what comes with it."""
    network, prepared = popular_only(shop(habits))
    memory, told = weigh(network, prepared)
    assert memory is not None
    assert told is not None
    assert told["mixture"] == 1
    assert told["mixture_gain"] > 0
    assert told["mixture_likelihood_at_least"] > 0.05
    mixing = network.mixing
    assert mixing is not None
    assert float(mixing.shares.sum()) == pytest.approx(1.0)
    own = 2 + EVIDENCE.index(COUNT)
    assert float(mixing.shares[own]) > 0.5


def test_a_network_without_is_left_alone(stacked: Model) -> None:
    prepared = prepare(shop(uniform), cut_off_ms=end_ms(), support=5)
    assert weigh(stacked.network, prepared) == (None, None)
