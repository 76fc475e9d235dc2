"""One comparison: every model tuned by the same budget, then asked the same requests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.evaluation.metrics import NAMES, bootstrap, summary
from training.lab.comparison.peer import Tell
from training.lab.comparison.protocol import Doubles
from training.lab.comparison.result_store import Finished, keep_requests, resume_folder
from training.lab.comparison.shop import Shop
from training.lab.comparison.tuning import MODELS, OWN, TIMED, find_reason_to_skip, one

METRICS: Final = ("ndcg@10", "mrr")
Work = Callable[..., Finished]
Progress = Callable[[int, int, str], None]


def compare(
    shop: Shop,
    *,
    seeds: Sequence[int],
    budget_s: float,
    models: Sequence[str] | None = None,
    jobs: int = 1,
    resume: Path | None = None,
    tell: Callable[[int, int, str], None],
    say: Tell,
) -> dict[str, Any]:
    """Tune and measure Portrait and its peers.

    Parameters
    ----------
    seeds
        Learned models are fitted once for each; their metrics are averaged by request.
    budget_s
        Seconds in which each model may try settings; a trial that has begun is finished.
    models
        Names to run; None: all that fit the data.
    jobs
        Processes that work at the same time, a model each.
    resume
        Folder that keeps each finished model of these data, seeds and budget, with its metrics
        at every request; what stands there is not run again.
    tell
        Called with models done and in all, and a line on the one at work.
    say
        Called with a line on each that is finished.

    Returns
    -------
    dict
        Plain values; see ``portrait compare --help``.
    """
    wanted = list(MODELS) if models is None else [OWN, *(m for m in models if m != OWN)]
    left = dict.fromkeys([name for name in MODELS if name not in wanted], "not asked for")
    left |= {name: why for name in wanted if (why := find_reason_to_skip(name, shop)) is not None}
    kept = None if resume is None else resume_folder(resume, shop, seeds, budget_s)
    if kept is not None:
        keep_requests(kept, shop)
    work = partial(one, shop, seeds=seeds, budget_s=budget_s)
    finished = dict[str, Finished]()
    for name, found in _each(work, [n for n in wanted if n not in left], jobs, kept, tell):
        finished[name] = found
        say(
            f"{name}: NDCG@10 {np.nanmean(found.metrics[:, 0]):.4f}, MRR "
            f"{np.nanmean(found.metrics[:, 3]):.4f} in {found.seconds:,.0f} s, "
            f"{found.tuning['tried']} settings"
        )
    users = shop.test.user
    rows = {name: finished[name].metrics for name in wanted if name in finished}
    controls = finished[OWN].controls
    untimed = {name: values for name, values in rows.items() if not MODELS[name].timed}
    return {
        **shop.describe(),
        "models": {n: summary(values, users) for n, values in {**rows, **controls}.items()},
        "over_best_peer": {m: _over(untimed, OWN, users, m) for m in METRICS},
        "over_best_peer_timed": {m: _over({**rows, **controls}, TIMED, users, m) for m in METRICS},
        "seconds": {name: finished[name].seconds for name in rows},
        "tuning": {
            "budget_s": budget_s, "seeds": list(seeds),
            **{name: finished[name].tuning for name in rows},
        },
        "not_run": left,
        "machine": finished[OWN].machine,
        "machines": {name: finished[name].machine for name in rows},
    }  # fmt: skip


def _each(
    work: Work, names: Sequence[str], jobs: int, kept: Path | None, tell: Progress
) -> Iterator[tuple[str, Finished]]:
    """Yield every model once it is finished: what is kept at once, the others by ``jobs``."""
    todo = list[str]()
    for name in names:
        found = None if kept is None else Finished.load(kept / f"{name}.npz")
        if found is None:
            todo.append(name)
        else:
            yield name, found
    done = len(names) - len(todo)
    fresh = (_in_turn if jobs == 1 else partial(_beside, jobs))(work, todo, done, tell)
    for name, found in fresh:
        if kept is not None:
            found.save(kept / f"{name}.npz")
        yield name, found


def _in_turn(
    work: Work, names: Sequence[str], done: int, tell: Progress
) -> Iterator[tuple[str, Finished]]:
    total = done + len(names)
    for at, name in enumerate(names, start=done):
        yield (
            name,
            work(name, tell=lambda line, at=at, name=name: tell(at, total, f"{name}: {line}")),
        )


def _beside(
    jobs: int, work: Work, names: Sequence[str], done: int, tell: Progress
) -> Iterator[tuple[str, Finished]]:
    import torch

    # Not forked: a GPU's driver does not survive that.
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        at_work = {pool.submit(work, name, tell=_nobody): name for name in names}
        tell(done, done + len(names), f"{jobs} at a time: {', '.join(names)}")
        try:
            for at, future in enumerate(as_completed(at_work), start=done):
                waiting = sorted(name for each, name in at_work.items() if not each.done())
                tell(at + 1, done + len(names), f"to come: {', '.join(waiting) or 'nothing'}")
                yield at_work[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _nobody(line: str) -> None:
    del line


def _over(rows: Mapping[str, Doubles], own: str, users: Any, metric: str) -> dict[str, Any] | None:
    """Return Portrait against the best peer: ratio of means, interval of their difference."""
    column = NAMES.index(metric)
    peers = {
        name: float(np.nanmean(values[:, column]))
        for name, values in rows.items()
        if name in MODELS and name != OWN
    }
    if own not in rows or not peers:
        return None
    best = max(peers, key=lambda n: peers[n])
    gap = bootstrap(rows[own][:, column] - rows[best][:, column], users)
    return {
        "peer": best,
        "ratio": float(np.nanmean(rows[own][:, column])) / max(peers[best], 1e-12),
        "difference": gap.mean,
        "ci": [gap.low, gap.high],
    }
