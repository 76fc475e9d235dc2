"""Mixtures of experts: shares are found again, and no side vetoes the other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.neighbours.channels import CHANNELS, READ
from training.network import mixture
from training.network.batches import Targets


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), first=st.floats(0.1, 0.9))
def test_the_shares_that_made_the_targets_are_found(seed: int, first: float) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(12, 0.3), (2, 4000))
    who = (draw.random(4000) > first).astype(int)
    lines = np.arange(4000)
    up_to = probabilities[who, lines].cumsum(axis=1)
    item = np.minimum((up_to < draw.random(4000)[:, None]).sum(axis=1), 11)
    given_LK = torch.from_numpy(probabilities[:, lines, item].T)
    shares = mixture.fit(given_LK, torch.ones(4000), [True, True])
    assert float(shares[0]) == pytest.approx(first, abs=0.06)


def test_an_expert_that_may_not_be_used_has_no_share() -> None:
    given_LK = torch.tensor([[0.1, 0.9, 0.2], [0.1, 0.9, 0.3]])
    shares = mixture.fit(given_LK, torch.ones(2), [True, False, True])
    assert shares[1] == 0
    assert float(shares.sum()) == pytest.approx(1.0)


def reading() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighed scores, logits and a reading of 3 requests over 20 items."""
    generator = torch.Generator().manual_seed(3)
    made = torch.randn(3, READ, 20, generator=generator)
    return torch.randn(3, 20, generator=generator), torch.randn(3, 20, generator=generator), made


def test_every_expert_spreads_one_probability_and_the_answer_is_their_sum() -> None:
    added, base, memory = reading()
    every = [mixture.probabilities(added, base, memory, k) for k in range(mixture.COUNT_EXPERTS)]
    for found in every:
        torch.testing.assert_close(found.sum(dim=1), torch.ones(3))
        assert float(found.min()) >= 0
    shares = torch.softmax(torch.arange(mixture.COUNT_EXPERTS) / 3.0, dim=0)
    expected = torch.stack(every, dim=2) @ shares
    torch.testing.assert_close(mixture.mix(shares, added, base, memory).exp(), expected)
    targets = Targets(torch.tensor([0, 1, 1]), torch.tensor([4, 7, 9]), torch.tensor([1, 2, 0]))
    given_LK = mixture.of_targets(added, base, memory, targets)
    torch.testing.assert_close(given_LK @ shares, expected[targets.owner, targets.item])


def test_an_expert_without_evidence_changes_no_order() -> None:
    added, base, memory = reading()
    memory[:, : len(CHANNELS)] = 0.0
    shares = torch.zeros(mixture.COUNT_EXPERTS)
    shares[[0, 2]] = 0.5
    found = mixture.mix(shares, added, base, memory)
    assert found.isfinite().all()
    torch.testing.assert_close(found.argsort(dim=1), added.argsort(dim=1))


def test_what_one_side_is_sure_of_the_other_cannot_veto() -> None:
    """An item that the network all but rules out, and that a neighbour points to."""
    added = torch.zeros(1, 20)
    added[0, 5] = -20.0
    memory = torch.zeros(1, READ, 20)
    memory[0, mixture.EVIDENCE[0], 5] = 0.01
    shares = torch.zeros(mixture.COUNT_EXPERTS)
    shares[[0, 2]] = torch.tensor([0.8, 0.2])
    assert int(mixture.mix(shares, added, added, memory).argmax()) == 5


def test_where_nothing_is_taken_twice_what_is_held_has_no_probability() -> None:
    added, base, memory = reading()
    memory[:, mixture.IN_HISTORY] = 0.0
    memory[:, mixture.IN_HISTORY, [3, 8]] = 2.0
    shares = torch.full((mixture.COUNT_EXPERTS,), 1 / mixture.COUNT_EXPERTS)
    found = mixture.mix(shares, added, base, memory, once=True)
    assert sorted(found[0].argsort()[:2].tolist()) == [3, 8]
    for k in range(mixture.COUNT_EXPERTS):
        q = mixture.probabilities(added, base, memory, k, once=True)
        assert float(q[:, [3, 8]].max()) == 0
        total = q.sum(dim=1)
        assert ((total - 1).abs() < 1e-4).all() or (total == 0).all()
