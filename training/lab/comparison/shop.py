"""A data set as a comparison reads it: histories, what is asked, and what may be answered."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import iso
from training.evaluation.baselines import EvaluationWindow, window
from training.history.prepare import History
from training.history.prepared import Prepared, weekly_moments
from training.history.sequences import Histories, Ints, encode, ranges
from training.history.user_features import UserFeatures
from training.history.vocabulary import build_vocabulary

REPEATS_FROM: Final = 0.01
"""Share of targets that the user had before, from which repeats are recommended."""
MIN_REQUESTS: Final = 50


@dataclass(frozen=True)
class Split:
    """Where fitting ends, where choosing ends, and where the test ends, epoch milliseconds.

    Attributes
    ----------
    train_until_ms
        Models are fitted on what lies before.
    cut_off_ms
        Settings and epochs are chosen on what lies between the two.
    until_ms
        End of the test.
    words
        How the split was made, for the reader.
    by_time
        False: times stand for order only.
    """

    train_until_ms: int
    cut_off_ms: int
    until_ms: int
    words: str
    by_time: bool = True


class Shop:
    """Histories of a data set, split, with requests and candidates.

    Parameters
    ----------
    name
        Of the data set.
    histories
        Users with their events in fold order.
    split
        See `Split`.
    support
        Fewest training events of a candidate; None: `training.history.vocabulary.minimum_support`.

    Attributes
    ----------
    histories
        All events as arrays.
    validation, test
        Requests: every target event of the window with a known item and an event before it.
    masked
        Whether items that the user had are left out of every ranking: so where fewer than
        `REPEATS_FROM` of the targets in training are repeats.

    Raises
    ------
    InvalidInputError
        If training, validation or test hold too little.
    """

    def __init__(
        self, name: str, histories: list[History], split: Split, *, support: int | None = None
    ) -> None:
        self.name, self.split = name, split
        inside = [(u, [e for e in h if e.time_ms < split.until_ms]) for u, h in histories]
        self.vocabulary = build_vocabulary(inside, until_ms=split.train_until_ms, support=support)
        self.histories = encode([(u, h) for u, h in inside if h], self.vocabulary)
        self.validation = window(self.histories, split.train_until_ms, split.cut_off_ms)
        self.test = window(self.histories, split.cut_off_ms, split.until_ms)
        for what, found in (("validate", self.validation), ("test", self.test)):
            if len(found.event) < MIN_REQUESTS:
                raise InvalidInputError(
                    f"{name}: {len(found.event)} requests to {what} ({split.words}), at least "
                    f"{MIN_REQUESTS} are needed: use more data, or items with more events "
                    f"({len(self.vocabulary.items)} are known)"
                )
        self.repeat_share = self._repeat_share()
        self.masked = self.repeat_share < REPEATS_FROM

    @property
    def items(self) -> int:
        """Number of candidates N."""
        return len(self.vocabulary.items)

    @cached_property
    def owner(self) -> Ints:
        """Row of the user of each event, shape (E,)."""
        return np.repeat(np.arange(len(self.histories.users)), self.histories.lengths())

    @cached_property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Which events lie before the end of training, shape (E,)."""
        return self.histories.time_ms < self.split.train_until_ms

    def prepare(self) -> Prepared:
        """Return what Portrait's training loop reads; the test is not in it."""
        first = self.histories.before(self.split.cut_off_ms)
        users = np.flatnonzero(first > 0)
        return self.prepare_histories(self.histories.select(users, first[users]))

    @cached_property
    def whole(self) -> Prepared:
        """The same with the test's events, for scoring."""
        return self.prepare_histories(self.histories)

    def prepare_histories(self, histories: Histories) -> Prepared:
        """Return some histories with this shop's vocabulary and split."""
        split = self.split
        moments = weekly_moments(
            histories, since_ms=int(histories.time_ms.min()), until_ms=split.cut_off_ms
        )
        return Prepared(
            self.vocabulary, UserFeatures.none(), histories,
            np.zeros((len(histories.time_ms), 0), np.float32), moments,
            split.train_until_ms, split.cut_off_ms,
        )  # fmt: skip

    def of(self, histories: Histories) -> "Shop":
        """Return other histories in this shop: the same candidates and split."""
        other = copy(self)
        for name in ("owner", "trained", "whole"):
            other.__dict__.pop(name, None)
        other.histories = histories
        return other

    def _repeat_share(self) -> float:
        """Return the share of target lines in training whose item the user had before."""
        histories = self.histories
        sizes = np.diff(histories.lines)
        owner = np.repeat(self.owner, sizes)
        event = np.repeat(np.arange(len(sizes)), sizes)
        known = (histories.item > 0) & self.trained[event]
        owner, event, item = owner[known], event[known], histories.item[known]
        pair = owner * (self.items + 1) + item
        _, first = np.unique(pair, return_index=True)
        again = np.ones(len(pair), np.bool_)
        again[first] = False
        targets = histories.target[event] & (event > histories.starts[:-1][owner])
        return float(again[targets].mean()) if targets.any() else 0.0

    def had(self, wanted: EvaluationWindow) -> tuple[Ints, Ints]:
        """Return request and item (from 0) of everything users had before each request."""
        histories = self.histories
        first = histories.lines[histories.starts[:-1][wanted.user]]
        sizes = histories.lines[wanted.event] - first
        request = np.repeat(np.arange(len(sizes)), sizes)
        item = histories.item[ranges(first, sizes)]
        known = item > 0
        return request[known], item[known] - 1

    def describe(self) -> Mapping[str, Any]:
        """Return the data set and its split in plain values."""
        lines = np.diff(self.histories.lines)[self.test.event]
        owner = self.histories
        hit = np.array(
            [(owner.item[owner.lines[e] : owner.lines[e + 1]] > 0).sum() for e in self.test.event]
        )
        inside = owner.target & (owner.time_ms >= self.split.cut_off_ms)
        return {
            "dataset": self.name,
            "split": {
                "how": self.split.words,
                "train_until": iso(self.split.train_until_ms),
                "test_since": iso(self.split.cut_off_ms),
                "validation_requests": len(self.validation.event),
                "test_requests": len(self.test.event),
                "test_users": len(np.unique(self.test.user)),
                "test_events_without_known_item_or_history": int(inside.sum())
                - len(self.test.event),
                "test_lines_outside_candidates": int(lines.sum() - hit.sum()),
                "seen_items": "left out" if self.masked else "kept",
                "repeat_share_in_training": round(self.repeat_share, 4),
            },
            "users": len(self.histories.users),
            "events": len(self.histories.time_ms),
            "items": self.items,
        }
