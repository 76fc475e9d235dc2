"""Examples: at which positions of a history something is asked, and what the answer was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.history.category_interests import InterestReader, Interests
from training.history.prepared import OUTCOMES, Prepared
from training.history.sequences import Histories, Ints
from training.history.vocabulary import DAY_MS
from training.neighbours.channels import Channels, SparseReading
from training.network import sampled_softmax
from training.network.batches import Targets, event_inputs, fold, join, make_targets, pairs_at
from training.network.config import ModelConfig, TrainConfig
from training.network.encoder import EventInputs
from training.network.network import Requests, make_requests
from training.network.next_category import NEXT_DAYS, bought_within
from training.network.repeat_head import Pairs
from training.state.item_table import RepeatTables, Rows

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BasketRequests:
    """Basket requests along the histories of all users.

    Attributes
    ----------
    user, event
        Row of the user and flat index of the last event before the request. Shape (P,).
    answer
        Flat index of the event whose basket is the answer. Shape (P,).
    timed
        Whether the time of the answer is known to the network. Shape (P,).
    """

    user: Ints
    event: Ints
    answer: Ints
    timed: Bools


@dataclass(frozen=True)
class Example:
    """One batch of histories and what is asked along them.

    Attributes
    ----------
    events
        Inputs of all events.
    request_index, requests, pairs, memory, targets
        Basket requests: row of the last event in ``(B·T)`` order, shape (P,), and the rest;
        memory has shape (P, M, N), or is None without one; of many items, a sparse reading.
    moment_index, moments, labels
        Requests for outcomes in the same form, with answers of shape (M, K); NaN: not known.
    moment_pairs, interests, bought, ended
        What is in the history and listed at those requests, where it was asked for; the categories
        bought within `NEXT_DAYS` of them, and whether those days lie in what was asked for, shape
        (M,).
    users, answers
        Row among all users, and flat index of the answer, of each basket request. Shape (P,).
    moment_rows
        Row among all moments of each request for outcomes, shape (M,).
    tables
        Repeat tables at the basket requests; None without requests.
    """

    events: EventInputs
    request_index: Tensor
    requests: Requests
    pairs: Pairs | None
    memory: Tensor | SparseReading | None
    targets: Targets
    moment_index: Tensor
    moments: Requests
    labels: Tensor
    moment_pairs: Pairs | None
    interests: Interests | None
    bought: Targets
    ended: Tensor
    users: Ints
    answers: Ints
    moment_rows: Ints
    tables: Rows | None


def next_targets(histories: Histories) -> Ints:
    """Return each event's next target event of the same user with a known item, −1 for none."""
    events = len(histories.time_ms)
    known = np.concatenate([[0], np.cumsum(histories.item > 0)])
    usable = histories.target & (known[histories.lines[1:]] > known[histories.lines[:-1]])
    following = np.append(np.where(usable, np.arange(events), events)[1:], events)
    following = np.minimum.accumulate(following[::-1])[::-1]
    last = np.repeat(histories.starts[1:], histories.lengths())
    return np.where(following < last, following, -1)


class ExampleMaker:
    """Chooses positions and puts batches together.

    Parameters
    ----------
    model, config
        Sizes, and how many positions are requests.
    memory
        To be read at every request; the network is trained without.
    """

    def __init__(
        self,
        prepared: Prepared,
        model: ModelConfig,
        config: TrainConfig,
        memory: Channels | None = None,
    ) -> None:
        self.prepared, self.model, self.config, self.memory = prepared, model, config, memory
        histories = prepared.histories
        self.next = next_targets(histories)
        self.train_length = histories.before(prepared.train_until_ms)
        self._interests = InterestReader(histories, len(prepared.vocabulary.categories))
        self._labels = self.labels(-(2**62), prepared.train_until_ms)
        self._moment_train = np.asarray(~np.isnan(self._labels).all(axis=1))
        self._moment_start = np.searchsorted(
            prepared.moments.user, np.arange(len(histories.users) + 1)
        )

    def labels(self, since_ms: int, until_ms: int) -> Floats:
        """Return all moments' labels, NaN unless their days end in ``(since, until]``."""
        moments = self.prepared.moments
        days = np.array(list(OUTCOMES.values()), np.int64)
        end = moments.time_ms[:, None] + days * DAY_MS
        inside = (end > since_ms) & (end <= until_ms)
        out: Floats = np.where(inside, moments.labels, np.float32(np.nan))
        return out

    def train_users(self) -> Ints:
        """Return users with at least one position to learn from."""
        end = self.prepared.histories.starts[:-1] + self.train_length
        first = self.next[np.minimum(self.prepared.histories.starts[:-1], len(self.next) - 1)]
        return np.flatnonzero((self.train_length > 1) & (first >= 0) & (first < end))

    def train_batches(self, epoch: int) -> list[Ints]:
        """Return the epoch's global batches of users: similar lengths, random order."""
        users = self.train_users()
        generator = np.random.default_rng([self.config.seed, epoch])
        noise = generator.uniform(0.8, 1.25, len(users))
        ordered = users[np.argsort(self.train_length[users] * noise, kind="stable")]
        size = self.config.batch_users or min(128, max(16, len(users) // 256))
        batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def train(self, users: Ints, epoch: int) -> Example:
        """Return a training batch; what is drawn depends on seed, epoch and user only."""
        starts = self.prepared.histories.starts
        own, event, timed, moments = list[Ints](), list[Ints](), list[Bools](), list[Ints]()
        for user in users:
            generator = np.random.default_rng([self.config.seed, epoch, int(user)])
            end = starts[user] + self.train_length[user]
            possible = np.arange(starts[user], end)
            answer = self.next[possible]
            possible = possible[(answer >= 0) & (answer < end)]
            drawn = _draw(generator, possible, self.config.positions)
            own.append(np.full(len(drawn), user))
            event.append(drawn)
            timed.append(generator.random(len(drawn)) < self.config.request_time)
            weeks = np.arange(self._moment_start[user], self._moment_start[user + 1])
            weeks = weeks[self._moment_train[weeks]]
            moments.append(_draw(generator, weeks, self.config.moments))
        events = np.concatenate(event)
        requests = BasketRequests(
            np.concatenate(own), events, self.next[events], np.concatenate(timed)
        )
        return self.make(
            users, requests, np.concatenate(moments), self.train_length[users],
            pairs_at_moments=self.model.recipe != "stacked",
        )  # fmt: skip

    def evaluation(self, users: Ints, since_ms: int, until_ms: int, *, timed: bool) -> Example:
        """Return requests right before every target event of ``users`` in a window.

        The weekly moments are those of which an outcome's days end in the window.
        """
        starts, times = self.prepared.histories.starts, self.prepared.histories.time_ms
        own, events = list[Ints](), list[Ints]()
        for user in users:
            possible = np.arange(starts[user], max(starts[user], starts[user + 1] - 1))
            answer = self.next[possible]
            inside = (answer == possible + 1) & (times[answer] >= since_ms)
            possible = possible[inside & (times[answer] < until_ms)]
            own.append(np.full(len(possible), user))
            events.append(possible)
        event = np.concatenate(events)
        labels = self.labels(since_ms, until_ms)
        rows = np.concatenate(
            [np.arange(self._moment_start[u], self._moment_start[u + 1]) for u in users]
        )
        rows = rows[~np.isnan(labels[rows]).all(axis=1)]
        requests = BasketRequests(
            np.concatenate(own), event, self.next[event], np.full(len(event), timed, np.bool_)
        )
        return self.make(users, requests, rows, self.prepared.histories.lengths()[users], labels)

    def _fold(
        self, histories: Histories, looks: list[tuple[Ints, Ints]]
    ) -> tuple[list[Rows | None], npt.NDArray[np.float64]]:
        """Fold histories once; return the tables at each group of (user, event), and scalars."""
        tables = RepeatTables(len(histories.users), self.model.capacity)
        users = np.concatenate([user for user, _ in looks])
        events = np.concatenate([event for _, event in looks])
        order = np.argsort(events, kind="stable")
        snapshots, scalars = fold(histories, tables, users[order], events[order])
        if not snapshots:
            return [None] * len(looks), scalars
        snapshot, index = join(snapshots), np.argsort(order, kind="stable")
        if len(looks) == 1:
            return [snapshot], scalars
        ends = np.cumsum([len(user) for user, _ in looks])
        return [_among(snapshot, part) for part in np.split(index, ends[:-1])], scalars

    def make(
        self,
        users: Ints,
        requests: BasketRequests,
        moments: Ints,
        lengths: Ints,
        labels: Floats | None = None,
        *,
        bounds_ms: tuple[int, int] | None = None,
        pairs_at_moments: bool = False,
    ) -> Example:
        """Put a batch together from the first ``lengths`` events of each of ``users``.

        ``labels`` of all moments, and the ``bounds_ms`` that those of `Example.ended` and their
        days lie in; the training period's by default.
        """
        prepared = self.prepared
        histories = prepared.histories.select(users, lengths)
        row = np.full(len(prepared.histories.users), -1, np.int64)
        row[users] = np.arange(len(users))
        time = requests.event - prepared.histories.starts[requests.user]
        order = np.lexsort((row[requests.user], time))
        user, event, answer = requests.user[order], requests.event[order], requests.answer[order]
        time, timed = time[order], requests.timed[order]
        every_moment = prepared.moments
        who, last = row[every_moment.user[moments]], every_moment.event[moments]
        at = every_moment.time_ms[moments]
        looks = [(row[user], time), *([(who, last)] if pairs_at_moments else [])]
        (snapshot, *others), scalars = self._fold(histories, looks)
        now = prepared.histories.time_ms[answer].astype(np.float64)
        features = prepared.features[np.where(timed, answer, event)]
        width = max(1, int(lengths.max(initial=0)))
        every = np.ones(len(moments), np.bool_)
        since, until = bounds_ms or (-(2**62), prepared.train_until_ms)
        gaps = prepared.vocabulary.median_gap_days
        return Example(
            events=event_inputs(histories),
            request_index=torch.from_numpy(row[user] * width + time),
            requests=make_requests(
                scalars[histories.starts[row[user]] + time], now, timed, features
            ),
            pairs=pairs_at(snapshot, now, timed, gaps),
            memory=(
                None
                if snapshot is None or self.memory is None
                else self.memory.read_sparse(snapshot)
                if len(prepared.vocabulary.items) > sampled_softmax.FULL_ITEMS
                else torch.from_numpy(self.memory.read(snapshot))
            ),
            targets=make_targets(prepared.histories, answer),
            moment_index=torch.from_numpy(who * width + last),
            moments=make_requests(
                scalars[histories.starts[who] + last],
                at.astype(np.float64),
                every,
                every_moment.features[moments],
            ),
            labels=torch.from_numpy((self._labels if labels is None else labels)[moments]),
            moment_pairs=pairs_at(others[0], at.astype(np.float64), every, gaps)
            if others
            else None,
            interests=(
                self._interests.at(every_moment.user[moments], at) if pairs_at_moments else None
            ),
            bought=bought_within(prepared.histories, every_moment.user[moments], at),
            ended=torch.from_numpy((at >= since) & (at + NEXT_DAYS * DAY_MS <= until)),
            users=user,
            answers=answer,
            moment_rows=moments,
            tables=snapshot,
        )


def _among(snapshot: Rows, chosen: Ints) -> Rows:
    """Return the tables ``chosen``, distinct, in their order."""
    index = np.full(len(snapshot.scalars), -1, np.int64)
    index[chosen] = np.arange(len(chosen))
    owner = index[snapshot.owner]
    kept = owner >= 0
    return Rows(owner[kept], snapshot.rows[kept], snapshot.scalars[chosen])


def _draw(generator: np.random.Generator, possible: Ints, most: int) -> Ints:
    if len(possible) <= most:
        return possible
    return np.sort(generator.choice(possible, most, replace=False))
