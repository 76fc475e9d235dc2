"""The learned state as of any moment: what the encoder makes of the events before it.

The encoder is fitted on events before one date only, so that what is judged later was not in it.
Belongs here: fitting it for targeting, and reading it. Not here: the encoder (`network.encoder`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from training.evaluation.predict import USERS_PER_PASS
from training.history.prepare import History
from training.history.prepared import OUTCOMES, VALIDATION_DAYS, Moments, Prepared
from training.history.sequences import Ints, encode
from training.history.vocabulary import DAY_MS
from training.lab.comparison import portrait_model
from training.lab.comparison.shop import Shop, Split
from training.network.config import TrainConfig
from training.network.examples import BasketRequests, ExampleMaker
from training.network.network import PortraitNetwork

Floats = npt.NDArray[np.float32]
_LATER_DAYS = 7


@dataclass(frozen=True)
class LearnedHistory:
    """What the encoder knew of users at some moments.

    Attributes
    ----------
    vector
        Profile vectors, zeros for who had no event before, shape (P, D).
    probability
        Probabilities of `history.prepared.OUTCOMES`, the mean where no event was, shape (P, K).
    item
        Logits of the vocabulary's items in its order, shape (P, N); None where not asked for.
    """

    vector: Floats
    probability: Floats
    item: Floats | None


class StateEncoder:
    """An encoder fitted on events before a date, to be asked as of later ones.

    Parameters
    ----------
    histories
        Users with all their events; only those before ``fitted_until_ms`` are learned from.
    fitted_until_ms
        Nothing at or after it is used in fitting or in choosing the epoch.
    seed
        Of the fit.
    tell
        Called with a line after each epoch.

    Raises
    ------
    InvalidInputError
        If too little lies before the date.
    """

    def __init__(
        self,
        histories: list[History],
        *,
        fitted_until_ms: int,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        split = Split(
            fitted_until_ms - VALIDATION_DAYS * DAY_MS,
            fitted_until_ms,
            fitted_until_ms + _LATER_DAYS * DAY_MS,
            f"fitted on the days up to {VALIDATION_DAYS} before, chosen on those",
        )
        self.shop = Shop("targeting", histories, split)
        # The shop ends with its split; what is asked later needs the events after it as well.
        recipe = portrait_model.SCHEDULES["short"]
        answers = portrait_model.fit(
            self.shop, recipe.model, replace(recipe.config, seed=seed), tell
        )
        self.network: PortraitNetwork = answers.network
        self.items = self.shop.vocabulary.items
        self._all = histories

    @cached_property
    def _whole(self) -> Prepared:
        known = [(u, h) for u, h in self._all if h]
        return self.shop.prepare_histories(encode(known, self.shop.vocabulary))

    def at(
        self, users: Sequence[str], time_ms: Sequence[int] | Ints, *, items: bool = False
    ) -> LearnedHistory:
        """Return what was known of ``users`` (pseudonyms) at the moments, row by row.

        An event at a moment itself is not seen. ``items`` asks for `Learned.item` as well.
        """
        histories = self._whole.histories
        rows = {user: n for n, user in enumerate(histories.users)}
        row = np.array([rows.get(user, -1) for user in users], np.int64)
        at_ms = np.asarray(time_ms, np.int64)
        last = np.full(len(row), -1, np.int64)
        for n in np.flatnonzero(row >= 0):
            part = slice(histories.starts[row[n]], histories.starts[row[n] + 1])
            times = np.maximum.accumulate(histories.time_ms[part])
            last[n] = np.searchsorted(times, at_ms[n], side="left") - 1
        there = np.flatnonzero(last >= 0)
        there = there[np.lexsort((at_ms[there], row[there]))]
        moments = Moments(
            row[there], last[there], at_ms[there],
            np.full((len(there), len(OUTCOMES)), np.nan, np.float32),
            np.zeros((len(there), 0), np.float32),
        )  # fmt: skip
        return self._read(moments, there, len(row), items=items)

    def _read(self, moments: Moments, there: Ints, count: int, *, items: bool) -> LearnedHistory:
        maker = ExampleMaker(
            replace(self._whole, moments=moments), self.network.config, TrainConfig()
        )
        vector = np.zeros((count, self.network.config.dim), np.float32)
        probability = np.full((count, len(self.network.outcomes)), np.nan, np.float32)
        popular = self.network.biases.detach().numpy().astype(np.float32)
        item = np.tile(popular, (count, 1)) if items else None
        lengths = np.zeros(len(self._whole.histories.users), np.int64)
        np.maximum.at(lengths, moments.user, moments.event + 1)
        users = np.flatnonzero(lengths)
        users = users[np.argsort(lengths[users], kind="stable")]
        none = np.zeros(0, np.int64)
        nothing = BasketRequests(none, none, none, np.zeros(0, np.bool_))
        self.network.eval()
        for begin in range(0, len(users), USERS_PER_PASS):
            some = users[begin : begin + USERS_PER_PASS]
            mine = np.flatnonzero(np.isin(moments.user, some))
            with torch.no_grad():
                example = maker.make(some, nothing, mine, lengths[some], pairs_at_moments=True)
                flat = self.network.unroll(example.events).flatten(0, 1)
                u = self.network.vector(flat[example.moment_index], example.moments)
                vector[there[mine]] = u.numpy()
                probability[there[mine]] = torch.sigmoid(self.network.outcome_logits(u)).numpy()
                if item is not None:
                    item[there[mine]] = self.network.logits(u, example.moment_pairs).numpy()
        mean = np.nanmean(probability, axis=0) if len(there) else np.full(probability.shape[1], 0.5)
        return LearnedHistory(vector, np.where(np.isnan(probability), mean, probability), item)
