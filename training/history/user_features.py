"""User features of the feature service, standardised for the network.

Names and statistics are fitted on the training period and stored in the manifest; the same
function reads a point-in-time table in training and one online row in service.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.errors import ModelMismatchError

Floats = npt.NDArray[np.float32]
_LIMIT = 5.0


def compress(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ``sign(x)·log(1 + |x|)``; what is not finite stays NaN."""
    finite = np.where(np.isfinite(values), values, np.nan)
    out: npt.NDArray[np.float64] = np.sign(finite) * np.log1p(np.abs(finite))
    return out


@dataclass(frozen=True)
class UserFeatures:
    """Names, means and deviations (of compressed values) in the network's order."""

    service: str
    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def none(cls) -> "UserFeatures":
        """Return the description of a model without user features."""
        return cls("", (), (), ())

    @classmethod
    def fit(
        cls, service: str, names: Sequence[str], table: npt.NDArray[np.float64]
    ) -> "UserFeatures":
        """Measure means and deviations; constant or always missing columns are left out."""
        kept, means, deviations = list[str](), list[float](), list[float]()
        for name, column in zip(names, compress(table).T, strict=True):
            present = column[~np.isnan(column)]
            if len(present) and float(present.std()) > 1e-6:
                kept.append(name)
                means.append(float(present.mean()))
                deviations.append(float(present.std()))
        return cls(service, tuple(kept), tuple(means), tuple(deviations))

    @cached_property
    def _scale(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return np.array(self.mean), np.maximum(self.deviation, 1e-6)

    def transform(self, table: npt.NDArray[np.float64]) -> Floats:
        """Standardise columns that stand in `names`' order; missing → 0. Shape kept."""
        mean, deviation = self._scale
        scaled = (compress(table) - mean) / deviation
        scaled[np.isnan(scaled)] = 0.0
        out: Floats = np.minimum(np.maximum(scaled, -_LIMIT), _LIMIT).astype(np.float32)
        return out

    def row(self, values: Mapping[str, Any] | None) -> Floats:
        """Standardise one online row, shape (1, F); names that are absent or null → 0."""
        given = values or {}
        found = [given.get(name) for name in self.names]
        numbers = [each if type(each) in (float, int) else number(each) for each in found]
        return self.transform(np.array([numbers], np.float64).reshape(1, len(self.names)))

    def values(self) -> dict[str, Any]:
        """Return the plain form for the manifest."""
        return {
            "service": self.service,
            "names": list(self.names),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "UserFeatures":
        """Read the plain form; `ModelMismatchError` if lists are missing or differ in length."""
        try:
            made = cls(
                str(values["service"]),
                tuple(values["names"]),
                tuple(values["mean"]),
                tuple(values["deviation"]),
            )
        except (KeyError, TypeError) as error:
            raise ModelMismatchError(f"the manifest's user features lack {error}") from error
        if not len(made.names) == len(made.mean) == len(made.deviation):
            raise ModelMismatchError("the manifest's user features differ in length")
        return made


def number(value: Any) -> float:
    """Return a feature value as a float, NaN when there is none."""
    if value is None or isinstance(value, str | bytes):
        return float("nan")
    return float(value)
