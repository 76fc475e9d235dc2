"""Requests of the bench: lean, on kept connections, at full speed or at a fixed rate.

`services.client` is for programs; here the client must cost little beside the service, so
requests are ready bytes over the standard library's HTTP. Belongs here: sending and timing.
Not here: what is sent (`load`).
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import orjson

from services.client import ApiError, Client
from services.event_log.receipt import Receipt

TIMEOUT_S: Final = 60.0
_PUT_OFF: Final = frozenset({429, 503})
_WAIT_S: Final = 0.2


class Connection:
    """One kept connection to the service that ``client`` talks to; made again after `close`."""

    def __init__(self, client: Client, timeout_s: float = TIMEOUT_S) -> None:
        address = urlsplit(client.base_url)
        assert address.hostname is not None
        self._http = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout_s)
        self._headers = {
            "authorization": f"Bearer {client.api_key}", "content-type": "application/json"
        }  # fmt: skip

    def begin(self, method: str, path: str, body: bytes | None = None) -> None:
        """Send a request and do not wait."""
        self._http.request(method, path, body, self._headers)

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        self.begin(method, path, body)
        response = self._http.getresponse()
        return response.status, response.read()

    def get(self, path: str) -> http.client.HTTPResponse:
        """Return the whole answer to a GET, its body read; the headers are on it.

        Raises
        ------
        ApiError
            If the status is not 2xx.
        """
        self.begin("GET", path)
        response = self._http.getresponse()
        data = response.read()
        if response.status >= 300:
            raise ApiError(response.status, orjson.loads(data) if data[:1] == b"{" else {})
        return response

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer.

        Raises
        ------
        ApiError
            If the status is not 2xx.
        """
        status, data = self.send(method, path, body)
        if status >= 300:
            raise ApiError(status, orjson.loads(data) if data[:1] == b"{" else {})
        return data

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Posted:
    """What a stream of batches did.

    Attributes
    ----------
    accepted
        Events that the service acknowledged.
    seconds
        From the first request to the last acknowledgement.
    put_off
        Answers of 503 or 429, each repeated after a pause.
    receipt
        One receipt for all.
    """

    accepted: int
    seconds: float
    put_off: int
    receipt: str


def merge_receipts(receipts: Iterable[str]) -> str:
    """Return one receipt that covers all.

    Examples
    --------
    >>> merge_receipts(["p001-5-0,p002-7-1", "p001-6-0"])
    'p001-6-0,p002-7-1'
    """
    positions = dict[int, tuple[int, int]]()
    for receipt in receipts:
        for partition, position in Receipt.parse(receipt).positions.items():
            positions[partition] = max(position, positions.get(partition, position))
    return str(Receipt(positions))


def post_batches(
    client: Client,
    bodies: Sequence[bytes],
    *,
    clients: int,
    tell: Callable[[int, int, str], None],
) -> Posted:
    """Post ready bodies from several threads as fast as they are taken.

    Raises
    ------
    ApiError
        If a batch is refused.
    """
    waiting, lock = iter(bodies), threading.Lock()
    receipts, counts = list[str](), [0, 0]  # accepted, put off

    def work(_: int, stop: threading.Event) -> None:
        with Connection(client) as connection:
            while not stop.is_set():
                with lock:
                    body = next(waiting, None)
                if body is None:
                    return
                status, data = connection.send("POST", "/v1/events/batch", body)
                while status in _PUT_OFF and not stop.is_set():
                    with lock:
                        counts[1] += 1
                    time.sleep(_WAIT_S)
                    status, data = connection.send("POST", "/v1/events/batch", body)
                answer = orjson.loads(data)
                if status != 202:
                    raise ApiError(status, answer)
                with lock:
                    counts[0] += answer["accepted"]
                    receipts.append(answer["receipt"])
                    tell(len(receipts), len(bodies), "batches")

    started_s = time.perf_counter()
    _together(work, clients)
    return Posted(counts[0], time.perf_counter() - started_s, counts[1], merge_receipts(receipts))


def send_paced(
    client: Client,
    requests: Sequence[tuple[str, str, bytes | None]],
    *,
    per_s: float,
    clients: int = 8,
) -> list[float]:
    """Send requests at a fixed rate whatever the answers take (open loop); return each's ms.

    A request that could not be sent in time, because its connection still waited for an
    answer, counts from the time at which it was due.

    Parameters
    ----------
    requests
        Method, path and body of each, in order.
    per_s
        Requests a second in all.

    Raises
    ------
    ApiError
        If one is refused.
    """
    taken_ms = [0.0] * len(requests)
    begin_s = time.perf_counter() + 0.05

    def work(first: int, stop: threading.Event) -> None:
        with Connection(client) as connection:
            connection.call("GET", "/health/live")  # connected before it is timed
            for index in range(first, len(requests), clients):
                if stop.is_set():
                    return
                due_s = begin_s + index / per_s
                early_s = due_s - time.perf_counter()
                if early_s > 0:
                    time.sleep(early_s)
                    due_s = time.perf_counter()  # waking up late is the client's affair
                connection.call(*requests[index])
                taken_ms[index] = (time.perf_counter() - due_s) * 1000

    _together(work, clients)
    return taken_ms


def _together(work: Callable[[int, threading.Event], None], count: int) -> None:
    """Run ``work(0, stop)`` … ``work(count − 1, stop)`` in threads and wait for all.

    ``stop`` is set when one fails or the caller is interrupted: the others then end soon.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(count, thread_name_prefix="bench") as pool:
        try:
            for done in as_completed([pool.submit(work, each, stop) for each in range(count)]):
                done.result()
        finally:
            stop.set()
