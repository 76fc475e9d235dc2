"""Whether memories count beside a network, and how much: asked of the validation period."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.baselines import Window, window
from training.batches import Targets, make_targets
from training.config import TrainConfig
from training.examples import Asked, ExampleMaker
from training.losses import basket_loss
from training.memory import COUNT, Memory
from training.metrics import bootstrap, ranking_metrics
from training.mixing import MAX_NUMBERS, Mixing
from training.network import PortraitNetwork
from training.prepared import Prepared


def weigh(
    network: PortraitNetwork, prepared: Prepared
) -> tuple[Memory | None, dict[str, float] | None]:
    """Fit memories to a network and keep them if they pay.

    Returns
    -------
    tuple
        The memories, or None where the network stands better alone (it is then told so); and
        what `fit_mixing` gave, None for a network without.
    """
    if network.mixing is None:
        return None, None
    items = len(prepared.vocabulary.items)
    memory = Memory.fit(prepared.histories, prepared.train_until_ms, items)
    told = fit_mixing(network, prepared, memory)
    if told["used"]:
        return memory, told
    network.without_memories()
    return None, told


def fit_mixing(
    network: PortraitNetwork,
    prepared: Prepared,
    memory: Memory,
    *,
    seen: bool = False,
    always: bool = False,
) -> dict[str, float]:
    """Set the weights of the memories by the validation period; see `training.mixing`.

    Whether they count at all is the data's to decide: weights fitted on the first half of the
    period must raise NDCG@10 on the second, the 95 % interval of the gain above 0.

    Parameters
    ----------
    seen
        Set them by the training period instead, which network and memories were fitted on.
    always
        Set them without asking whether they pay. Both are for ablations.

    Returns
    -------
    dict
        ``gain`` on the second half and its lower bound ``gain_at_least``; ``used`` (0 or 1);
        loss of the ``network`` alone and ``mixed``.
    """
    assert network.mixing is not None
    maker = ExampleMaker(prepared, network.config, TrainConfig(), memory)
    since, until = prepared.train_until_ms, prepared.until_ms
    asked = window(prepared.histories, *((-(2**62), since) if seen else (since, until)))
    most = max(100, MAX_NUMBERS // ((COUNT + 1) * len(prepared.vocabulary.items)))
    stride = max(1, -(-len(asked.event) // most))
    fitted = _fit_on(network, maker, Window(asked.event[::stride], asked.user[::stride]))
    return fitted.on_all() if always else fitted.if_it_pays()


@dataclass(frozen=True)
class _Mixed:
    """Requests in the order of time, and what a network and memories answer to them.

    Attributes
    ----------
    base, memory, log_events
        Logits, channels and log(1 + n), as `training.mixing.Mixing` takes them.
    """

    mixing: Mixing
    prepared: Prepared
    window: Window
    base: Tensor
    memory: Tensor
    log_events: Tensor

    def on_all(self) -> dict[str, float]:
        """Fit the network's weights."""
        before, after = self._fit(self.mixing, slice(None))
        return {"network": before, "mixed": after, "used": 1.0}

    def if_it_pays(self) -> dict[str, float]:
        """Fit them if what the first half teaches helps on the second."""
        half = len(self.window.event) // 2
        first, second = slice(0, half), slice(half, None)
        trial = Mixing()
        self._fit(trial, first)
        with torch.no_grad():
            base = self.base[second]
            mixed = trial(base, self.memory[second], self.log_events[second])
        targets = make_targets(self.prepared.histories, self.window.event[second])
        gain = ranking_metrics(mixed, targets)[:, 0] - ranking_metrics(base, targets)[:, 0]
        found = bootstrap(np.nan_to_num(gain), self.window.user[second])
        told = {"gain": found.mean, "gain_at_least": found.low}
        if found.low > 0:
            return {**told, **self.on_all()}
        with torch.no_grad():
            loss = float(basket_loss(self.base, self._targets(slice(None))))
        return {**told, "network": loss, "mixed": loss, "used": 0.0}

    def _targets(self, part: slice) -> Targets:
        return make_targets(self.prepared.histories, self.window.event[part])

    def _fit(self, mixing: Mixing, part: slice) -> tuple[float, float]:
        return mixing.fit(
            self.base[part], self.memory[part], self.log_events[part], self._targets(part)
        )


def _fit_on(network: PortraitNetwork, maker: ExampleMaker, asked: Window) -> _Mixed:
    """Ask the network and the memories before the events of a window."""
    prepared = maker.prepared
    assert network.mixing is not None
    network.eval()
    users = np.unique(asked.user)
    requests = Asked(asked.user, asked.event - 1, asked.event, np.zeros(len(asked.user), np.bool_))
    lengths = prepared.histories.lengths()[users]
    with torch.no_grad():
        example = maker.make(users, requests, np.zeros(0, np.int64), lengths)
        flat = network.unroll(example.events).flatten(0, 1)
        u = network.vector(flat[example.place], example.requests)
        base = network.logits(u, example.pairs)
    assert example.memory is not None
    times = prepared.histories.time_ms[example.answers]
    order = np.argsort(times, kind="stable")
    rows = torch.from_numpy(order)
    return _Mixed(
        network.mixing, prepared, Window(example.answers[order], example.users[order]),
        base[rows], example.memory[rows], example.requests.statistics[rows, 0],
    )  # fmt: skip
