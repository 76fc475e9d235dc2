"""Counts of the rows that follow each model, by partition, as updaters made them last."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from feature_repo.events.schema import iso
from feature_repo.online.connection import translated
from services.models.schemas import EncodingProgress

KEY: Final = "{models}rows"
"""Hash of `RowCounts` as JSON, by partition."""


class RowCounts(msgspec.Struct, frozen=True):
    """Rows of a partition.

    Attributes
    ----------
    target
        Version of the model that all are to follow.
    models
        Rows by the version of the model that they follow; empty: no model.
    short
        Those that cannot be encoded anew: part of their history was swept.
    at_ms
        When they were counted, epoch milliseconds.
    """

    target: str
    models: dict[str, int]
    short: int
    at_ms: int

    @property
    def left(self) -> int:
        """Rows that are still to be encoded anew."""
        others = sum(n for version, n in self.models.items() if version != self.target)
        return max(0, others - self.short)


def write(client: Any, partition: int, counts: RowCounts) -> None:
    """Keep a partition's counts; `StoreUnavailableError` if the store does not answer."""
    with translated():
        client.hset(KEY, str(partition), msgspec.json.encode(counts))


async def read_async(client: Any) -> list[RowCounts]:
    """Return the counts of all partitions that were counted."""
    with translated():
        return _parse(await client.hgetall(KEY))


def add_up(counts: Iterable[RowCounts]) -> Counter[str]:
    """Return rows by the version of the model that they follow."""
    total = Counter[str]()
    for each in counts:
        total.update(each.models)
    return total


def sum_up(counts: Sequence[RowCounts]) -> EncodingProgress:
    """Return the progress over all partitions."""
    by_model = add_up(counts)
    return {
        "target": max(counts, key=lambda each: each.at_ms).target if counts else None,
        "rows": by_model.total(),
        "left": sum(each.left for each in counts),
        "short": sum(each.short for each in counts),
        "at": iso(min(each.at_ms for each in counts)) if counts else None,
        "by_model": dict(by_model),
    }


def _parse(values: Mapping[bytes, bytes]) -> list[RowCounts]:
    return [msgspec.json.decode(value, type=RowCounts) for value in values.values()]
