import numpy as np
import pytest
import torch

from training.evaluation.metrics import NAMES, bootstrap, difference, ranking_metrics, summary
from training.network.batches import Targets


def random_case(seed: int, requests: int = 40, items: int = 60) -> tuple[torch.Tensor, Targets]:
    draw = np.random.default_rng(seed)
    scores = torch.from_numpy(draw.permuted(np.tile(np.arange(items), (requests, 1)), axis=1) * 0.1)
    sizes = draw.integers(1, 15, requests)
    item = np.concatenate([draw.choice(items, n, replace=False) for n in sizes])
    owner = np.repeat(np.arange(requests), sizes)
    return scores, Targets(torch.tensor(owner), torch.tensor(item), torch.tensor(sizes))


def test_metrics_equal_torchmetrics() -> None:
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    scores, targets = random_case(1)
    relevant = torch.zeros(scores.shape, dtype=torch.bool)
    relevant[targets.owner, targets.item] = True
    index = torch.arange(len(scores))[:, None].expand(scores.shape)
    oracles = (
        retrieval.RetrievalNormalizedDCG(top_k=10),
        retrieval.RetrievalRecall(top_k=10),
        retrieval.RetrievalHitRate(top_k=10),
        retrieval.RetrievalMRR(),
    )
    found = ranking_metrics(scores, targets).mean(axis=0)
    for value, oracle in zip(found, oracles, strict=True):
        expected = oracle(scores.flatten().float(), relevant.flatten(), index.flatten())
        assert value == pytest.approx(float(expected), abs=1e-6)


def test_equal_scores_go_to_the_lower_row_and_empty_baskets_to_nothing() -> None:
    targets = Targets(torch.tensor([0]), torch.tensor([2]), torch.tensor([1, 0]))
    found = ranking_metrics(torch.zeros(2, 5), targets)
    assert found[0, NAMES.index("mrr")] == pytest.approx(1 / 3)
    assert np.isnan(found[1]).all()


def test_bootstrap_resamples_users_not_rows() -> None:
    draw = np.random.default_rng(0)
    user_means = draw.normal(0, 1, 30)
    users = np.repeat(np.arange(30), 200)
    values = user_means[users]
    wide = bootstrap(values, users)
    narrow = bootstrap(values, np.arange(len(values)))
    assert wide.low < wide.mean < wide.high
    assert (wide.high - wide.low) > 5 * (narrow.high - narrow.low)


def test_a_better_method_has_a_difference_above_zero() -> None:
    scores, targets = random_case(2)
    better = scores.clone()
    better[targets.owner, targets.item] += 3
    users = np.arange(len(scores)) // 2
    one, other = ranking_metrics(better, targets), ranking_metrics(scores, targets)
    assert difference(one, other, users)["ndcg@10"]["ci"][0] > 0
    assert summary(one, users)["ci"]["mrr"][0] <= summary(one, users)["mrr"]
