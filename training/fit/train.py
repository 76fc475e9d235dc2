"""Training from an archive to a model directory, with Ray Train or without.

A run has a folder ``models/.run-<name>`` with the prepared arrays, the checkpoint and the
progress; it is removed when the model directory stands.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from feature_repo.erasure.running_work import hold_folder
from feature_repo.events.schema import iso
from training.evaluation.calibration import calibrate
from training.fit import local_ray
from training.fit.live import fit_live
from training.fit.loop import CHECKPOINT, PROGRESS, Fit, new_network, train_loop_per_worker
from training.fit.reranker import fit_reranker
from training.fit.selection import weigh
from training.fit.signals import restore_signals
from training.fit.worker import Alone
from training.history.prepare import feast_join, milliseconds, prepare, read_histories
from training.history.prepared import Prepared
from training.network.config import ModelConfig, TrainConfig
from training.network.devices import accelerator, one_thread
from training.network.model_dir import save

OnEpoch = Callable[[Mapping[str, Any]], None]
Say = Callable[[str], None]
_POLL_S = 0.3


def train(
    home: Path,
    *,
    cut_off: datetime,
    recipe: str = "fused",
    workers: int = 2,
    epochs: int | None = None,
    seed: int = 7,
    resume: bool = False,
    name: str | None = None,
    ray: bool = True,
    model: ModelConfig | None = None,
    config: TrainConfig | None = None,
    on_epoch: OnEpoch = lambda record: None,
    progress: Say = lambda line: None,
) -> Path:
    """Train a model on the archive and write its directory.

    Parameters
    ----------
    home
        State folder with ``archive/events``.
    cut_off
        Start of the test period, with offset. Nothing at or after it is read.
    workers
        Ray Train workers; one GPU each where there are GPUs, else one CPU each.
    epochs, seed
        Override those of ``config``.
    resume
        Go on from the checkpoint of a run of the same name that was stopped.
    name
        Of the model directory below ``home/models``; default recipe, cut-off and seed.
    ray
        False runs the loop in this process.
    on_epoch
        Called with ``epoch``, ``loss``, ``validation_ndcg@10``, ``seconds``; ``done`` is
        absent from the notes between, which carry ``batch`` and ``batches``.
    progress
        Called with one line of text per stage.

    Raises
    ------
    InvalidInputError
        If there is too little history, or a name is already taken.
    """
    shape = replace(model or ModelConfig(), recipe=recipe)
    settings = replace(config or TrainConfig(), seed=seed)
    settings = settings if epochs is None else replace(settings, epochs=epochs)
    target = _target(home, name or f"{recipe}-{cut_off:%Y%m%d}-{seed}", resume=resume)
    run = target.with_name(f".run-{target.name}")
    resumed = resume and (run / "arrays.npz").exists()
    if not resumed:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
    with hold_folder(run):  # an erasure removes histories that nobody holds
        if not resumed:
            _prepare(home, run, milliseconds(cut_off), progress, joined=recipe == "fused")
        progress(f"training {recipe} with {workers} workers" if ray else f"training {recipe}")
        with _watch(run / PROGRESS, on_epoch):
            if ray:
                train_with_ray(run, shape, settings, workers)
            else:
                with one_thread():
                    Fit(run, shape, settings, Alone(accelerator())).run(resume=resume)
        write_model(run, target, shape, settings)
        shutil.rmtree(run, ignore_errors=True)
    return target


def _prepare(home: Path, run: Path, cut_off_ms: int, progress: Say, *, joined: bool) -> None:
    """Write what is known before the cut-off to ``run``, with joined features if that is wished."""
    progress("reading the archive")
    histories = read_histories(home, until_ms=cut_off_ms)
    join = feast_join(home) if joined else None
    progress("preparing sequences" + (" and joining point-in-time features" if join else ""))
    prepare(histories, cut_off_ms=cut_off_ms, point_in_time=join).write(run)


def _target(home: Path, name: str, *, resume: bool) -> Path:
    """Return a free model directory: the name, or with a number when it is taken."""
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    path, number = models / name, 1
    while path.exists():
        number += 1
        path = models / f"{name}-{number}"
    return path


def write_model(run: Path, target: Path, shape: ModelConfig, settings: TrainConfig) -> None:
    """Write the model directory ``target`` from the best weights of the run in ``run``."""
    kept = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    prepared = Prepared.read(run)
    network = new_network(prepared, shape)
    network.load_state_dict(kept["best"])
    memory, mixing = weigh(network, prepared)
    live = fit_live(network, prepared, memory)
    reranker, trees = fit_reranker(network, prepared, memory)
    calibration = calibrate(network, prepared)
    epochs = kept["progress"]["epochs"]
    training = {
        "train_until": iso(prepared.train_until_ms),
        "validated_until": iso(prepared.until_ms),
        "events": len(prepared.histories.time_ms),
        "users": len(prepared.histories.users),
        "items": len(prepared.vocabulary.items),
        "seed": settings.seed,
        "settings": asdict(settings),
        "torch": torch.__version__,
    }
    metrics = {
        "validation": kept["progress"]["best"],
        "epochs": epochs,
        "memories": mixing,
        "live_popularity": live,
        "reranker": trees,
        "calibration": calibration,
    }
    save(
        target, network, prepared.vocabulary, prepared.user_features,
        memory=memory, reranker=reranker, training=training, metrics=metrics,
    )  # fmt: skip


def train_with_ray(
    run: Path, shape: ModelConfig, settings: TrainConfig, workers: int
) -> list[dict[str, Any]]:
    """Train what is prepared in ``run`` on Ray, from its checkpoint if any; return the epochs."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with local_ray.using(num_cpus=max(2, workers)):
        gpu = ray.cluster_resources().get("GPU", 0) >= workers
        trainer = TorchTrainer(
            train_loop_per_worker,
            train_loop_config={
                "folder": str(run.resolve()),
                "model": shape.values(),
                "train": asdict(settings),
                "threads": 1,
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            run_config=RunConfig(
                name=f"attempt-{time.time_ns()}",
                storage_path=str((run / "ray").resolve()),
                failure_config=FailureConfig(max_failures=2),
            ),
        )
        with restore_signals():
            trainer.fit()
    kept = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    return list(kept["progress"]["epochs"])


@contextmanager
def _watch(path: Path, note: OnEpoch) -> Iterator[None]:
    """Pass each line that the loop appends to ``path`` on to ``note`` while the body runs."""
    done = threading.Event()
    seen = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        position = seen
        while True:
            last = done.wait(_POLL_S)
            if path.exists():
                size = path.stat().st_size
                position = 0 if size < position else position
                with path.open() as file:
                    file.seek(position)
                    for line in iter(file.readline, ""):
                        if not line.endswith("\n"):
                            break
                        position += len(line.encode())
                        note(json.loads(line))
            if last:
                return

    thread = threading.Thread(target=follow, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
