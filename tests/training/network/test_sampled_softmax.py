"""A sampled softmax against the full one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL, fit
from tests.training.shops import end_ms, habits, shop
from training.fit import objective
from training.history.prepare import prepare
from training.network import sampled_softmax
from training.network.batches import Targets
from training.network.config import TrainConfig
from training.network.examples import ExampleMaker
from training.network.losses import basket_loss
from training.network.model_dir import Model
from training.network.network import PortraitNetwork


def test_candidates_hold_the_targets_and_their_probabilities_are_met() -> None:
    torch.manual_seed(0)
    share = torch.softmax(torch.linspace(0, -5, 50), 0)
    shares = sampled_softmax.Shares(share)
    seen, rounds = torch.zeros(50), 4000
    probability = torch.zeros(50)
    for _ in range(rounds):
        item = torch.multinomial(share, 3, replacement=True)
        targets = Targets(torch.arange(3), item, torch.ones(3, dtype=torch.int64))
        found = sampled_softmax.draw(shares, targets, 20)
        assert torch.equal(found.items, found.items.unique())
        assert torch.equal(found.items[found.to_candidates(targets).item], item)
        seen[found.items] += 1
        probability[found.items] = found.log_probability.exp()
    often = seen > 400
    np.testing.assert_allclose(seen[often] / rounds, probability[often], rtol=0.15)


def test_some_items_have_the_logits_they_have_among_all(model: Model) -> None:
    network = model.network
    maker_of = prepare(shop(habits), cut_off_ms=end_ms(), support=5)
    maker = ExampleMaker(maker_of, model.config, TrainConfig())
    example = maker.train(maker.train_users()[:6], 0)
    with torch.no_grad():
        flat = network.unroll(example.events).flatten(0, 1)
        u = network.vector(flat[example.request_index], example.requests)
        everything = network.logits(u, example.pairs)
        items = torch.tensor([0, 3, 4, 17, network.items - 1])
        torch.testing.assert_close(
            network.logits_of(items, u, example.pairs), everything[:, items], atol=1e-5, rtol=1e-5
        )


def test_the_sampled_loss_is_near_the_full_one() -> None:
    """Averaged over draws; without the correction it is far off."""
    torch.manual_seed(1)
    items = 3000
    share = torch.softmax(-torch.arange(items) / 400.0, 0)
    shares = sampled_softmax.Shares(share)
    logits = torch.randn(40, items) + share.log()
    item = torch.multinomial(torch.softmax(logits, 1), 2)
    owner = torch.arange(40).repeat_interleave(2)
    targets = Targets(owner, item.flatten(), torch.full((40,), 2))
    full = float(basket_loss(logits, targets))
    corrected, raw = list[float](), list[float]()
    for _ in range(30):
        found = sampled_softmax.draw(shares, targets, 500)
        some, index = logits[:, found.items], found.to_candidates(targets)
        corrected.append(float(basket_loss(found.corrected(some, targets), index)))
        raw.append(float(basket_loss(some, index)))
    assert np.mean(corrected) == pytest.approx(full, abs=0.05)
    assert full - np.mean(raw) > 0.3


def test_training_with_samples_learns_as_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(epochs=3, warm_up=10, batch_users=3, positions=4)
    whole = fit(tmp_path / "whole", shop(habits), config=config).progress
    monkeypatch.setattr(sampled_softmax, "FULL_ITEMS", 10)
    monkeypatch.setattr(objective, "NEGATIVES", 6)
    called = list[int]()
    ask = PortraitNetwork.logits_of

    def counted(self: PortraitNetwork, items: torch.Tensor, *rest: object) -> torch.Tensor:
        called.append(len(items))
        return ask(self, items, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PortraitNetwork, "logits_of", counted)
    few = fit(tmp_path / "few", shop(habits), SMALL, config).progress
    assert max(called) < 40
    assert few.best > whole.best - 0.05
