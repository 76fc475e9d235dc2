"""One model's part of a comparison, and where it is kept until all are done.

Belongs here: what a finished model leaves behind. Not here: fitting and tuning it (`run`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.lab.comparison.protocol import Doubles
from training.lab.comparison.shop import Shop


@dataclass(frozen=True)
class Finished:
    """What is known of a model once it is tuned and measured.

    Attributes
    ----------
    metrics
        `evaluation.metrics.NAMES` at every test request, the mean over seeds. Shape (P, 4).
    controls
        The same of what is no part of the comparison, by name.
    tuning
        Setting chosen, its validation, settings tried, NDCG@10 by seed.
    seconds
        Of everything together.
    machine
        Where it ran.
    """

    metrics: Doubles
    controls: Mapping[str, Doubles]
    tuning: Mapping[str, Any]
    seconds: float
    machine: str

    def save(self, path: Path) -> None:
        """Write to ``path``, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        words = {"tuning": self.tuning, "seconds": self.seconds, "machine": self.machine}
        temporary = path.with_suffix(".tmp.npz")
        controls: dict[str, Any] = {f"control:{n}": each for n, each in self.controls.items()}
        np.savez_compressed(
            temporary, words=np.array(json.dumps(words)), metrics=self.metrics, **controls
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Finished | None":
        """Read what `save` wrote, or None if there is nothing."""
        if not path.exists():
            return None
        with np.load(path) as found:
            controls = {
                name.removeprefix("control:"): found[name]
                for name in found.files
                if name.startswith("control:")
            }
            words = json.loads(str(found["words"]))
            return cls(found["metrics"], controls, **words)


def keep_requests(folder: Path, shop: Shop) -> None:
    """Write ``requests.npz`` to ``folder``: which requests the rows of `Finished.metrics` are.

    Arrays of shape (P,): ``user``, the row of the user in the data set; ``user_id``; ``request``,
    the index of the event that is predicted among the user's, from 0; ``time_ms`` of it.
    """
    histories, test = shop.histories, shop.test
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "requests.npz", user=test.user, user_id=np.array(histories.users)[test.user],
        request=test.event - histories.starts[:-1][test.user],
        time_ms=histories.time_ms[test.event],
    )  # fmt: skip


def resume_folder(folder: Path, shop: Shop, seeds: Sequence[int], budget_s: float) -> Path:
    """Return the folder below ``folder`` of comparisons over just these data, seeds and budget."""
    histories, split = shop.histories, shop.split
    digest = hashlib.sha256(
        repr((shop.vocabulary.items, histories.users, split, tuple(seeds), budget_s)).encode()
    )
    for array in (histories.starts, histories.time_ms, histories.kind, histories.item):
        digest.update(np.ascontiguousarray(array).tobytes())
    return folder / f"{shop.name}-{digest.hexdigest()[:12]}"
