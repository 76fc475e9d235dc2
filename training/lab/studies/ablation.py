"""Ablation of Portrait's model: the same fit with one part left out.

Every row is fitted and chosen as the whole model is, with the schedule given, once per seed.
Changed encoders take the place of the product's before the first step; asked otherwise are one
and the same networks: without memories, with memories weighed on what they were fitted on, with
shuffled histories, and with the request's time known.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from training.evaluation.metrics import Doubles
from training.fit.selection import fit_mixing
from training.lab.comparison import portrait_model
from training.lab.comparison.protocol import measure
from training.lab.studies.study import Study
from training.neighbours.channels import Channels
from training.network.encoder import EventInputs, FusedEncoder
from training.network.network import PortraitNetwork
from training.network.stacked import StackedEncoder
from training.network.stacking import Stacking

WHOLE: Final = "portrait"
Alter = Callable[[PortraitNetwork], None]


class _Pass(nn.Module):
    """No convolution: c = x."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD


class _Silent(nn.Module):
    """No LSTM: y = 0, so that e sees the last three events."""

    def forward(self, c_BTD: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(c_BTD), None


class _Mean(nn.Module):
    """The mean of all c so far instead of an LSTM."""

    def forward(self, c_BTD: Tensor) -> tuple[Tensor, None]:
        number = torch.arange(1, c_BTD.shape[1] + 1, device=c_BTD.device)
        return c_BTD.cumsum(dim=1) / number[:, None], None


class _Stacked(nn.Module):
    """The recipe ``stacked`` under the product's heads: Conv1D → LSTM(100) → linear."""

    def __init__(self, inner: FusedEncoder, items: int, categories: int) -> None:
        super().__init__()
        self.stacked = StackedEncoder(items, categories, inner.dim)
        self.content = self.stacked.content
        self.out = nn.Linear(self.stacked.dim, inner.dim)

    def unroll(self, inputs: EventInputs) -> Tensor:
        out: Tensor = self.out(self.stacked.unroll(inputs))
        return out


def _fuse(network: PortraitNetwork) -> FusedEncoder:
    assert isinstance(network.encoder, FusedEncoder)
    return network.encoder


def _no_convolution(network: PortraitNetwork) -> None:
    _fuse(network).convolve = _Pass()  # type: ignore[assignment]


def _no_lstm(network: PortraitNetwork) -> None:
    _replace_lstm(_fuse(network), _Silent())


def _mean_pool(network: PortraitNetwork) -> None:
    _replace_lstm(_fuse(network), _Mean())


def _replace_lstm(encoder: FusedEncoder, other: nn.Module) -> None:
    encoder.lstm = other  # type: ignore[assignment]
    encoder.project = nn.Linear(encoder.dim, encoder.dim)


def _stack(network: PortraitNetwork) -> None:
    inner = _fuse(network)
    categories = inner.content.category.num_embeddings - 1
    network.encoder = _Stacked(inner, network.items, categories)  # type: ignore[assignment]


PARTS: Final[Mapping[str, tuple[Mapping[str, bool], Alter | None]]] = {
    WHOLE: ({}, None),
    "no_convolution": ({}, _no_convolution),
    "no_lstm": ({}, _no_lstm),
    "mean_pool": ({}, _mean_pool),
    "stacked": ({}, _stack),
    "no_encoder": ({"encoder": False}, None),
    "no_repeat_head": ({"repeat": False}, None),
}
"""What is fitted anew."""


def _answer_otherwise(
    answers: portrait_model.Answers, seed: int
) -> dict[str, portrait_model.Answers]:
    """Return what a fitted network answers with something taken from it, or given to it."""
    found = {"shuffled_history": replace(answers, shuffled=seed)}
    if answers.shop.split.by_time:
        found["request_time_known"] = replace(answers, timed=True)
    if answers.memory is None:
        return found | {"memories_though_they_do_not_pay": _with_memories(answers, seen=False)}
    alone = copy.deepcopy(answers.network)
    alone.without_memories()
    if answers.network.mixing is not None and answers.network.mixing.mixture:
        summed = copy.deepcopy(answers.network)
        assert summed.mixing is not None
        with torch.no_grad():
            summed.mixing.shares.zero_()
            summed.mixing.shares[0] = 1.0
        found |= {"no_mixture": replace(answers, network=summed)}
    return found | {
        "no_memories": replace(answers, network=alone, memory=None),
        "memories_weighed_in_fold": _with_memories(answers, seen=True),
    }


def _with_memories(answers: portrait_model.Answers, *, seen: bool) -> portrait_model.Answers:
    """Return the answers with memories weighed on the training or the validation period."""
    prepared, network = answers.shop.prepare(), copy.deepcopy(answers.network)
    memory = Channels.fit(prepared.histories, prepared.train_until_ms, answers.shop.items)
    network.mixing = Stacking()
    fit_mixing(network, prepared, memory, seen=seen, always=True)
    return replace(answers, network=network, memory=memory)


def ablate(study: Study) -> dict[str, Any]:
    """Measure every part.

    Returns
    -------
    dict
        See `training.lab.studies.study.Study.result`; ``rows`` by part, with ``by_seed`` (NDCG@10)
        and ``less``, the part's NDCG@10 minus the whole model's.
    """
    shop, parts = study.shop, dict[str, list[Doubles]]()
    for at, (name, (without, alter)) in enumerate(PARTS.items()):
        for seed in study.seeds:
            tell = study.at(at, len(PARTS), f"{name}, seed {seed}")
            answers = study.fit(seed, tell, without, alter)
            variants = {name: answers}
            if name == WHOLE:
                variants |= _answer_otherwise(answers, seed)
            for row, score in variants.items():
                parts.setdefault(row, []).append(measure(shop, shop.test, score))
        study.say(f"{name}: NDCG@10 {np.mean([np.nanmean(p[:, 0]) for p in parts[name]]):.4f}")
    rows = {name: np.mean(found, axis=0) for name, found in parts.items()}
    return study.result(
        "ablation",
        {
            name: {
                **study.against(values, rows[WHOLE]),
                "by_seed": [float(np.nanmean(part[:, 0])) for part in parts[name]],
            }
            for name, values in rows.items()
        },
    )
