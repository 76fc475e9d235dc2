"""The floor: what an update cannot go below on this machine with this model and this server.

One process that, batch by batch, reads the users' rows, runs the model's step and writes
rows and cursor with plain redis-py: no HTTP, no log, no validation, no explicit profile, no
guard, one field a row. `Floor` runs the product's own step on its own states, memories
included; `PlainFloor` a textbook step of the same width (causal convolution, LSTM, dense
layer) on rows of floats: what such a model costs at all, whoever writes it.
"""

import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np

from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import row_key

_FIELD: Final = "state"


class Learned(Protocol):
    """What is needed of `training.scoring.transition.LearnedTransition`."""

    def replay(
        self,
        histories: Sequence[Sequence[EventRecord]],
        states: Sequence[bytes | None] | None = None,
    ) -> list[bytes]:
        """Apply the events of each user to that user's state."""
        ...


def floor_key(name: str, user: str) -> bytes:
    """Return the key of a user's row of the floor of this name; never that of a live one."""
    return b"bench:%s:" % name.encode() + row_key(user)


def floor_cursor(name: str) -> bytes:
    """Return the key of the cursor of the floor of this name: events applied."""
    return b"bench:%s:cursor" % name.encode()


def by_user(events: Sequence[EventRecord]) -> dict[str, list[EventRecord]]:
    """Return a batch's events by user, in order."""
    queues = defaultdict[str, list[EventRecord]](list)
    for event in events:
        queues[event.user].append(event)
    return dict(queues)


class _FloorRows(ABC):
    """Reads, steps, writes; the step is the subclass's."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._applied = 0

    def run(self, batches: Sequence[Sequence[EventRecord]]) -> float:
        """Apply batches and return events per second."""
        prepared = [(batch, self._prepare(by_user(batch))) for batch in batches]
        started_s = time.perf_counter()
        for batch, inputs in prepared:
            self._apply(batch, inputs)
        return sum(map(len, batches)) / (time.perf_counter() - started_s)

    def _apply(self, batch: Sequence[EventRecord], inputs: Any) -> None:
        users = list(dict.fromkeys(event.user for event in batch))
        with self._client.pipeline(transaction=False) as pipe:
            for user in users:
                pipe.hget(floor_key(self._name, user), _FIELD)
            states = pipe.execute()
        stepped = self._step(states, inputs)
        self._applied += len(batch)
        with self._client.pipeline(transaction=False) as pipe:
            for user, state in zip(users, stepped, strict=True):
                pipe.hset(floor_key(self._name, user), _FIELD, state)
            pipe.set(floor_cursor(self._name), self._applied)
            pipe.execute()

    @abstractmethod
    def _prepare(self, queues: dict[str, list[EventRecord]]) -> Any:
        """Return what the step takes, outside the measured time."""

    @abstractmethod
    def _step(self, states: list[bytes | None], inputs: Any) -> list[bytes]:
        """Return the new states of a batch's users, in their order."""


class Floor(_FloorRows):
    """The floor of the bench: the product's model step, bytes to bytes.

    Parameters
    ----------
    client
        Client of the server that the service uses.
    learned
        The model.
    name
        Keeps the rows of several floors apart.
    """

    def __init__(self, client: Any, learned: Learned, name: str = "floor") -> None:
        super().__init__(client, name)
        self._learned = learned

    def _prepare(self, queues: dict[str, list[EventRecord]]) -> list[list[EventRecord]]:
        return list(queues.values())

    def _step(self, states: list[bytes | None], inputs: Any) -> list[bytes]:
        return self._learned.replay(inputs, states)


class PlainFloor(_FloorRows):
    """A textbook step: rows are the convolution's last two inputs, h and c, as floats.

    Parameters
    ----------
    client
        Client of the server that the service uses.
    items
        Rows of the item embedding.
    dim, hidden
        Width of the embedding, and units of the LSTM.
    """

    def __init__(self, client: Any, items: int, *, dim: int = 64, hidden: int = 128) -> None:
        import torch

        super().__init__(client, "plain")
        torch.manual_seed(0)
        self._dim, self._hidden, self._items = dim, hidden, items
        self._embedding = torch.nn.Embedding(items, dim)
        self._conv = torch.nn.Linear(3 * dim, dim)  # one output of a Conv1d of kernel 3
        self._lstm = torch.nn.LSTMCell(dim, hidden)
        self._dense = torch.nn.Linear(hidden + dim, dim)
        self._floats = 2 * dim + 2 * hidden

    def _prepare(self, queues: dict[str, list[EventRecord]]) -> list[tuple[Any, Any]]:
        import torch

        return [
            (torch.tensor(users), torch.tensor([_number(event, self._items) for event in events]))
            for users, events in _waves(list(queues.values()))
        ]

    def _step(self, states: list[bytes | None], inputs: Any) -> list[bytes]:
        import torch

        nothing = bytes(4 * self._floats)
        flat = np.frombuffer(b"".join(s or nothing for s in states), np.float32).copy()
        rows = torch.from_numpy(flat.reshape(len(states), self._floats))
        ring = 2 * self._dim
        with torch.inference_mode():
            for users, items in inputs:
                before, x = rows[users], self._embedding(items)
                convolved = torch.relu(self._conv(torch.cat([before[:, :ring], x], dim=1)))
                h, c = before[:, ring : ring + self._hidden], before[:, ring + self._hidden :]
                h, c = self._lstm(x, (h, c))
                self._dense(torch.cat([h, convolved], dim=1))
                rows[users] = torch.cat([before[:, self._dim : ring], x, h, c], dim=1)
        return [row.tobytes() for row in rows.numpy()]


def _waves(queues: Sequence[Sequence[EventRecord]]) -> Iterator[tuple[list[int], Any]]:
    """Yield the users who have a first event, and those events; then the second ones; and so on."""
    for k in range(max(map(len, queues), default=0)):
        users = [user for user, queue in enumerate(queues) if len(queue) > k]
        yield users, [queues[user][k] for user in users]


def _number(event: EventRecord, items: int) -> int:
    return zlib.crc32(event.items[0].item_id.encode()) % items if event.items else 0
