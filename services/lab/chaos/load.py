"""The clients of chaos: each sends its own users' events, again until they are acknowledged.

A client has one batch under way and knows the order of its events, so what must stand in
the log is a matter of numbers. Belongs here: sending, and what was acknowledged when. Not
here: whether it is true (`check`).
"""

import contextlib
import heapq
import http.client
import random
import threading
import time
import zlib
from array import array
from collections.abc import Sequence
from typing import Final

from services.client import ApiError, Client
from services.lab.bench.http import Connection
from services.lab.bench.load import Load, OfferedLoad, body_of

BATCH: Final = 50
USERS: Final = 60
"""Users of one client."""
PROMISE_S: Final = 2.0
"""What a power cut may take: whatever was acknowledged less long before it."""

_PATH: Final = "/v1/events/batch"
_TIMEOUT_S: Final = 4.0
_PAUSE_S: Final = (0.02, 0.2)
_LATER_S: Final = (1.0, 6.0)
_REPEATED: Final = 0.05
_CUT: Final = 0.01
_REFUSALS: Final = frozenset({408, 429})


class Sender:
    """What one client sends and what became of it; event ``n`` is in batch ``n // batch``.

    Parameters
    ----------
    name
        Of the client; event ``n`` has the id ``<name>-<n>``.
    batch, users
        Events in a batch, and number of users.

    Attributes
    ----------
    users
        Their user ids.
    sent_s, acked_s
        For each batch when it was first sent and when it was first acknowledged.
    """

    def __init__(self, name: str, batch: int = BATCH, users: int = USERS) -> None:
        self.name = name
        self.batch = batch
        self.users = [f"{name}-shopper-{number}" for number in range(users)]
        self.sent_s = array("d")
        self.acked_s = array("d")

    @property
    def acknowledged(self) -> int:
        """Number of events that were: the first so many."""
        return len(self.acked_s) * self.batch

    @property
    def sent(self) -> int:
        """Number of events that were sent."""
        return len(self.sent_s) * self.batch

    def user(self, number: int) -> str:
        """Return the user id of an event."""
        return self.users[zlib.crc32(b"%d" % number) % len(self.users)]

    def at_risk(self, cuts_s: Sequence[float]) -> set[int]:
        """Return the batches that a power cut may have taken from the log.

        Those acknowledged less than `PROMISE_S` before it, and those under way: what they
        wrote before it may be gone although the answer came after it.
        """
        return {
            index
            for index, sent_s in enumerate(self.sent_s)
            for acked_s in (self.acked_s[index : index + 1] or (float("inf"),))
            if any(sent_s <= cut_s <= acked_s + PROMISE_S for cut_s in cuts_s)
        }


class ChaosClient:
    """One client of the service.

    Parameters
    ----------
    service
        Whom to talk to.
    sender
        What it sends.
    offered
        Items of its events.
    seed
        Same seed, same events, repeats and cuts.
    rest_s
        Pause after each batch.

    Attributes
    ----------
    resends, repeats, cut
        Requests sent again for want of an answer, sent again although answered, and given
        up by closing the connection.
    """

    def __init__(
        self,
        service: Client,
        sender: Sender,
        offered: Sequence[OfferedLoad],
        seed: str,
        rest_s: float = 0.0,
    ) -> None:
        self._wire = _Wire(service)
        self._load = Load(offered, users=len(sender.users), seed=sender.name)
        self._draw = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._rest_s = rest_s
        self._later = list[tuple[float, bytes]]()
        self.sender = sender
        self.resends, self.repeats, self.cut = 0, 0, 0

    def run(self, ended: threading.Event, abandoned: threading.Event) -> None:
        """Send until ``ended``, then finish the open batch unless ``abandoned``.

        Raises
        ------
        ApiError
            If the service refuses an event for good.
        """
        try:
            while not ended.is_set():
                self._one(abandoned)
                if self._rest_s:
                    ended.wait(self._rest_s)
        finally:
            self._wire.close()

    def _one(self, abandoned: threading.Event) -> None:
        sender = self.sender
        first = sender.sent
        body = body_of(
            [self._load.event(n, sender.user(n)) for n in range(first, first + sender.batch)]
        )
        sender.sent_s.append(time.monotonic())
        if self._draw.random() < _CUT:
            self.cut += 1
            self._wire.send_and_close(body)
            self.resends += 1
        while not self._wire.acknowledged(body):
            self.resends += 1
            if abandoned.wait(self._draw.uniform(*_PAUSE_S)):
                return
        sender.acked_s.append(time.monotonic())
        self._repeat(body)

    def _repeat(self, body: bytes) -> None:
        if self._draw.random() < _REPEATED:
            wait_s = self._draw.choice((0.0, self._draw.uniform(*_LATER_S)))
            heapq.heappush(self._later, (time.monotonic() + wait_s, body))
        while self._later and self._later[0][0] <= time.monotonic():
            self.repeats += 1
            self._wire.acknowledged(heapq.heappop(self._later)[1])


class _Wire:
    """Posts batches over a connection that is made again whenever it breaks."""

    def __init__(self, service: Client) -> None:
        self._connection = Connection(service, _TIMEOUT_S)
        self.close = self._connection.close

    def acknowledged(self, body: bytes) -> bool:
        """Send a batch and say whether all of it was; False asks for another try."""
        try:
            status, data = self._connection.send("POST", _PATH, body)
        except (OSError, http.client.HTTPException):
            self.close()
            return False
        if status in _REFUSALS or status >= 500:
            return False
        if status != 202:
            raise ApiError(status, {"detail": data[:200].decode(errors="replace")})
        return True

    def send_and_close(self, body: bytes) -> None:
        """Send a batch and hang up before the answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._connection.begin("POST", _PATH, body)
        self.close()
