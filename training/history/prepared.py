"""Prepared histories: one folder of arrays, made once and shared by all workers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from training.history.sequences import Histories, Ints
from training.history.user_features import UserFeatures
from training.history.vocabulary import DAY_MS, Vocabulary

Floats = npt.NDArray[np.float32]
WEEK_MS = 7 * DAY_MS
VALIDATION_DAYS = 21
OUTCOMES: Final = {"purchase_7d": 7, "lapse_28d": 28}
"""What is monday_ms at a moment, and the days it looks ahead: at least one purchase in the first,
none in the second."""
_FIRST_MONDAY_MS = 4 * DAY_MS  # 1970-01-05


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments at which outcomes are monday_ms: every Monday 00:00 UTC after a user's first event.

    Attributes
    ----------
    user, event
        Index of the user and of the last event before the moment, from the user's first.
    time_ms
        The moment.
    labels
        1.0 where an outcome of `OUTCOMES` came true, 0.0 where not, NaN where its days reach
        beyond the data. Shape (M, 2).
    features
        Standardised user features as of the moment, shape (M, F).
    """

    user: Ints
    event: Ints
    time_ms: Ints
    labels: Floats
    features: Floats


@dataclass(frozen=True)
class Prepared:
    """All that a worker needs.

    Attributes
    ----------
    histories
        Every consumed event before the cut-off.
    features
        Standardised user features as of each event, before it. Shape (E, F).
    moments
        Weekly moments of which at least one outcome is known before the cut-off.
    train_until_ms, until_ms
        End of training and of validation, epoch milliseconds.
    """

    vocabulary: Vocabulary
    user_features: UserFeatures
    histories: Histories
    features: Floats
    moments: Moments
    train_until_ms: int
    until_ms: int

    def write(self, folder: Path) -> None:
        """Write the folder; files appear whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "vocabulary.json", self.vocabulary.encode())
        meta = {
            "train_until_ms": self.train_until_ms,
            "until_ms": self.until_ms,
            "user_features": self.user_features.values(),
        }
        _write(folder / "meta.json", orjson.dumps(meta))
        arrays: dict[str, npt.NDArray[Any]] = {
            f"h_{k}": v for k, v in self.histories.arrays().items()
        }
        arrays |= {f"m_{k}": getattr(self.moments, k) for k in Moments.__slots__}
        arrays["features"] = self.features
        temporary = folder / f".arrays.{os.getpid()}.npz"
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        temporary.replace(folder / "arrays.npz")

    @classmethod
    def read(cls, folder: Path) -> "Prepared":
        """Read what `write` wrote."""
        meta = orjson.loads((folder / "meta.json").read_bytes())
        with np.load(folder / "arrays.npz") as arrays:
            parts = {name: arrays[name] for name in arrays.files}
        return cls(
            vocabulary=Vocabulary.decode((folder / "vocabulary.json").read_bytes()),
            user_features=UserFeatures.read(meta["user_features"]),
            histories=Histories.from_arrays(_part(parts, "h_")),
            features=parts["features"],
            moments=Moments(**_part(parts, "m_")),
            train_until_ms=meta["train_until_ms"],
            until_ms=meta["until_ms"],
        )


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def weekly_moments(histories: Histories, *, since_ms: int, until_ms: int) -> Moments:
    """Return the Mondays in ``[since, until − 7 days]`` of every user, without features.

    A purchase is a target event. Labels look at events before ``until_ms`` only.
    """
    user, event, time_ms, labels = list[Ints](), list[Ints](), list[Ints](), list[Floats]()
    first = -((_FIRST_MONDAY_MS - since_ms) // WEEK_MS) * WEEK_MS + _FIRST_MONDAY_MS
    mondays = np.arange(first, until_ms - WEEK_MS + 1, WEEK_MS, dtype=np.int64)
    for row, start in enumerate(histories.starts[:-1]):
        part = slice(int(start), int(histories.starts[row + 1]))
        times = np.maximum.accumulate(histories.time_ms[part])
        if not len(times):
            continue
        monday_ms = mondays[mondays > times[0]]
        bought = np.sort(histories.time_ms[part][histories.target[part]])
        within = [
            np.searchsorted(bought, monday_ms + days * DAY_MS) > np.searchsorted(bought, monday_ms)
            for days in OUTCOMES.values()
        ]
        known = [monday_ms + days * DAY_MS <= until_ms for days in OUTCOMES.values()]
        came_true = [within[0], ~within[1]]
        user.append(np.full(len(monday_ms), row, np.int64))
        event.append(np.searchsorted(times, monday_ms).astype(np.int64) - 1)
        time_ms.append(monday_ms)
        labels.append(np.where(known, came_true, np.nan).T.astype(np.float32))
    moments = np.concatenate(time_ms) if time_ms else np.zeros(0, np.int64)
    return Moments(
        user=np.concatenate(user) if user else moments,
        event=np.concatenate(event) if event else moments,
        time_ms=moments,
        labels=np.concatenate(labels) if labels else np.zeros((0, len(OUTCOMES)), np.float32),
        features=np.zeros((len(moments), 0), np.float32),
    )
