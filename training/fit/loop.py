"""The training loop: the same code under Ray Train and alone.

``train_loop_per_worker`` is what Ray runs. After every epoch rank 0 writes one checkpoint whole; a
run that was killed goes on from it and ends with the same losses.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from training.evaluation.predict import auc, score_window
from training.fit.objective import Objective
from training.fit.optimizer import Optimizer
from training.fit.worker import WorkerSession, mean
from training.history.prepared import Prepared
from training.history.sequences import Ints
from training.history.vocabulary import DAY_MS
from training.network import sampled_softmax
from training.network.config import ModelConfig, TrainConfig
from training.network.devices import autocast, move
from training.network.examples import Example, ExampleMaker
from training.network.network import PortraitNetwork
from training.network.next_category import NEXT_DAYS, rates
from training.network.sampled_softmax import Shares

MAKERS = 8
"""Most processes that make examples for one GPU."""
CHECKPOINT = "checkpoint.pt"
PROGRESS = "progress.ndjson"


class _Made(Dataset[Example]):
    """An epoch's examples, each made when it is asked for."""

    def __init__(self, maker: ExampleMaker, batches: Sequence[Ints], epoch: int) -> None:
        self._maker, self._batches, self._epoch = maker, batches, epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, at: int) -> Example:
        return self._maker.train(self._batches[at], self._epoch)


@dataclass
class Progress:
    """What a checkpoint keeps beside tensors."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    stale: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)


class Fit:
    """One run of the loop.

    Parameters
    ----------
    folder
        Shared folder of the run: prepared arrays in, checkpoint and progress out.
    alter
        Changes the fresh network, for ablations.
    """

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        config: TrainConfig,
        session: WorkerSession,
        alter: Callable[[PortraitNetwork], None] | None = None,
    ) -> None:
        self.folder, self.model, self.config, self.session = folder, model, config, session
        self.prepared = Prepared.read(folder)
        self.maker = ExampleMaker(self.prepared, model, config)
        torch.manual_seed(config.seed)
        self.network = new_network(self.prepared, model)
        if alter is not None:
            alter(self.network)
        self.network.to(session.device)
        self.optimizer = Optimizer(self.network, config, session)
        self.step = session.wrap(Objective(self.network, config, self._shares()))
        self.best = self.optimizer.average
        self.progress = Progress()

    def _shares(self) -> Shares | None:
        """Return each item's share of lines where there are too many for a full softmax."""
        log_support = self.prepared.vocabulary.log_support
        if len(log_support) <= sampled_softmax.FULL_ITEMS:
            return None
        return Shares.of(log_support, self.session.device)

    def run(self, *, resume: bool) -> Progress:
        """Train until the epochs are used up or validation no longer improves."""
        if resume:
            self._load()
        else:
            if self.session.rank == 0:
                (self.folder / CHECKPOINT).unlink(missing_ok=True)
                (self.folder / PROGRESS).unlink(missing_ok=True)
        while self.progress.epoch < self.config.epochs and (
            self.progress.stale < self.config.patience
        ):
            self._epoch()
        return self.progress

    def _epoch(self) -> None:
        started = time.monotonic()
        progress, session = self.progress, self.session
        epoch = progress.epoch
        torch.manual_seed(self.config.seed * 100_003 + epoch * 101 + session.rank)
        batches = self.maker.train_batches(epoch)
        total, events = 0.0, 0
        self.step.train()
        shares = [
            np.resize(users, max(len(users), session.world))[session.rank :: session.world]
            for users in batches
        ]
        for number, example in enumerate(self.examples(shares, epoch)):
            loss, predicted = self.batch(example)
            total, events = total + loss, events + predicted
            if number % 10 == 0:
                self._note({"epoch": epoch, "batch": number, "batches": len(batches)})
        loss, train_seconds = mean(session, total, len(batches)), time.monotonic() - started
        score, seconds = self.validate(), time.monotonic() - started
        improved = score > progress.best
        progress.best = max(progress.best, score)
        progress.stale = 0 if improved else progress.stale + 1
        progress.epoch += 1
        name = "auc" if self.model.recipe == "stacked" else "ndcg@10"
        record = {
            "epoch": epoch, "loss": loss, f"validation_{name}": score, "seconds": seconds,
            "train_seconds": train_seconds, "events": events * session.world,
        }  # fmt: skip
        progress.epochs.append(record)
        if improved:
            self.best = {k: v.clone() for k, v in self.optimizer.average.items()}
        self._save()
        self._note({**record, "done": True})
        session.report(record)

    def examples(self, batches: Sequence[Ints], epoch: int) -> Iterator[Example]:
        """Yield the batches' examples; beside a GPU, the CPUs make them ahead."""
        spare = len(os.sched_getaffinity(0)) // self.session.world - 1
        workers = min(MAKERS, spare) if self.session.device.type == "cuda" else 0
        made = _Made(self.maker, batches, epoch)
        yield from DataLoader(made, batch_size=None, num_workers=max(0, workers))

    def batch(self, example: Example) -> tuple[float, int]:
        """Take one step; return its loss and how many baskets it predicted."""
        example = move(example, self.session.device)
        self.network.zero_grad(set_to_none=True)
        with autocast(self.session.device):
            loss = self.step(example)
        loss.backward()
        self.progress.step += 1
        self.optimizer.step(self._rate(), self.progress.step)
        return float(loss.detach()), len(example.answers)

    def _rate(self) -> float:
        if self.model.recipe == "stacked":
            return 1e-3
        warm = min(1.0, self.progress.step / self.config.warm_up)
        return self.config.learning_rate * warm * self.config.decay**self.progress.epoch

    def validate(self) -> float:
        """Return the averaged weights' NDCG@10 (``stacked``: AUC) on the validation window."""
        prepared, session = self.prepared, self.session
        users = validation_users(prepared, self.config)[session.rank :: session.world]
        with self.optimizer.use_average():
            scored = score_window(
                self.network, self.maker, users,
                (prepared.train_until_ms, prepared.until_ms), timed=False, device=session.device,
            )  # fmt: skip
        if self.model.recipe == "stacked":
            return mean(session, auc(*scored.select_known(0)), 1)
        gains = scored.metrics[:, 0]
        return mean(session, float(np.nansum(gains)), int((~np.isnan(gains)).sum()))

    def _note(self, record: Mapping[str, Any]) -> None:
        if self.session.rank == 0:
            with (self.folder / PROGRESS).open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _save(self) -> None:
        if self.session.rank:
            return
        temporary = self.folder / f".{CHECKPOINT}.{os.getpid()}.tmp"
        torch.save(
            {
                "config": [self.model.values(), asdict(self.config)],
                "network": self.network.state_dict(),
                "best": self.best,
                "descent": self.optimizer.state(),
                "progress": asdict(self.progress),
            },
            temporary,
        )
        temporary.replace(self.folder / CHECKPOINT)

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        kept = torch.load(path, map_location=self.session.device, weights_only=True)
        self.network.load_state_dict(kept["network"])
        self.optimizer.load(kept["descent"])
        self.best = kept["best"]
        self.progress = Progress(**kept["progress"])


def new_network(prepared: Prepared, model: ModelConfig) -> PortraitNetwork:
    """Return a fresh network for the data, biases at the items' popularity."""
    vocabulary = prepared.vocabulary
    network = PortraitNetwork(
        model, len(vocabulary.items), len(vocabulary.categories), len(prepared.user_features.names)
    )
    network.start_from(vocabulary)
    if network.next_category is not None:
        moments = prepared.moments
        seen = moments.time_ms + NEXT_DAYS * DAY_MS <= prepared.train_until_ms
        found = rates(
            prepared.histories, moments.user[seen], moments.time_ms[seen],
            len(vocabulary.categories),
        )  # fmt: skip
        network.next_category.start_from(found)
    return network


def validation_users(prepared: Prepared, config: TrainConfig) -> npt.NDArray[np.int64]:
    """Return the users validated on: all, or an evenly spread part of many."""
    users = np.arange(len(prepared.histories.users))
    stride = max(1, -(-len(users) // config.validation_users))
    return users[::stride]


def train_loop_per_worker(config: Mapping[str, Any]) -> None:
    """Run in every Ray Train worker.

    Parameters
    ----------
    config
        ``folder``, ``model``, ``train`` (plain values of the dataclasses) and ``resume``.
    """
    from training.fit.ray_worker import RaySession

    torch.set_num_threads(int(config["threads"]))
    fit = Fit(
        Path(config["folder"]), ModelConfig(**config["model"]), TrainConfig(**config["train"]),
        RaySession(),
    )  # fmt: skip
    # A worker that Ray started again finds this run's checkpoint: always look for one.
    fit.run(resume=True)
