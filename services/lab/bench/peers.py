"""Peers of the recommendation bench: LibRecommender's ``libserving`` and Cornac's server.

Both are installed into an environment of their own, given one BPR model of the same users'
events over as many items, started the way their pages say, and asked by the same clients.
They rank by vectors alone: no profile that moves, no rules, no features.
"""

import csv
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from feature_repo.errors import PortraitError
from services.client import Client
from services.demo.latency import percentiles
from services.hosting.embedded import connect, free_port
from services.lab.bench import peer_models
from services.lab.bench.http import Connection
from services.settings import Settings

PACKAGES: Final = (
    "cornac==3.0.1", "flask==3.1.3", "LibRecommender==1.5.2", "sanic==25.12.1", "ujson", "redis",
    "faiss-cpu==1.15.1", "pydantic",
)  # fmt: skip
UP_S: Final = 60.0
SINGLE: Final = 300

Ask = Callable[[Connection, str], None]
"""Sends one request for a user and reads the answer."""
Rps = Callable[[Client, Ask], dict[str, float]]


@dataclass(frozen=True)
class PeerServer:
    """How a peer's server is started and asked.

    Attributes
    ----------
    command
        Arguments of its environment's Python; ``{port}`` stands for the port.
    """

    command: tuple[str, ...]
    ask: Ask


def _ask_libserving(connection: Connection, user: str) -> None:
    _check_answer(connection, "POST", "/embed/recommend", orjson.dumps({"user": user, "n_rec": 10}))


def _ask_cornac(connection: Connection, user: str) -> None:
    _check_answer(connection, "GET", f"/recommend?uid={user}&k=10")


def _check_answer(
    connection: Connection, method: str, path: str, body: bytes | None = None
) -> None:
    answer = orjson.loads(connection.call(method, path, body))
    if sum(len(v) for v in answer.values() if isinstance(v, list)) != 10:
        raise PortraitError(f"a peer answered {str(answer)[:100]}, not ten items")


PEERS: Final = {
    "libserving": PeerServer(
        ("-m", "sanic", "libserving.sanic_serving.embed_deploy:app", "--host", "127.0.0.1",
         "--port", "{port}", "--single-process", "--no-access-logs"),
        _ask_libserving,
    ),
    "cornac": PeerServer(
        ("-m", "flask", "--app", "cornac.serving.app", "run", "--host", "127.0.0.1",
         "--port", "{port}"),
        _ask_cornac,
    ),
}  # fmt: skip


def measure_peers(pairs: Sequence[tuple[str, str]], rps: Rps) -> dict[str, Any]:
    """Install, train and start the peers one after another, and return what each does.

    Parameters
    ----------
    pairs
        Which user had which item.
    rps
        Measures requests a second of several numbers of clients.

    Raises
    ------
    PortraitError
        If one cannot be installed or does not come up.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portrait-peers-")))
        python = _environment(folder)
        (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        store = Settings(home=folder / "store", redis_url=None)
        url = stack.enter_context(connect(store))
        with (folder / "events.csv").open("w", newline="") as file:
            csv.writer(file).writerows(pairs)
        script = str(Path(peer_models.__file__))
        # -P: this folder's modules are not to be taken for libraries (`http`).
        _run([str(python), "-P", script, str(folder), url, str(packages)], folder)
        users = list(dict.fromkeys(user for user, _ in pairs))
        return {
            name: _measure(peer, python, folder, url, users, rps) for name, peer in PEERS.items()
        }


def _environment(folder: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *PACKAGES]
    _run(pip, folder)
    return python


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PortraitError(f"{' '.join(command[:5])} …: {done.stderr.strip()[-300:]}")


def _measure(
    peer: PeerServer, python: Path, folder: Path, url: str, users: Sequence[str], rps: Rps
) -> dict[str, Any]:
    port = free_port()
    with _serving(peer, python, folder, url, port) as client:
        with Connection(client) as connection:
            taken = []
            for number in range(SINGLE):
                started_s = time.perf_counter()
                peer.ask(connection, users[number % len(users)])
                taken.append((time.perf_counter() - started_s) * 1000)
        return {"recommend_ms": percentiles(taken), "rps": rps(client, peer.ask)}


@contextmanager
def _serving(peer: PeerServer, python: Path, folder: Path, url: str, port: int) -> Iterator[Client]:
    models = sorted((folder / "cornac").rglob("*.pkl"))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PORTRAIT_", "PYTHONPATH"))},
        "REDIS_HOST": url.removeprefix("redis://"), "MODEL_CLASS": "cornac.models.BPR",
        "MODEL_PATH": str(models[0]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [part.format(port=port) for part in peer.command]
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), *command], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        with Client(f"http://127.0.0.1:{port}", "none") as client:
            _wait(client, process, log)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(client: Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + UP_S
    while True:
        try:
            with Connection(client) as connection:
                connection.send("GET", "/")
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                tail = log.read_text()[-300:]
                raise PortraitError(f"a peer did not come up: {tail}") from None
            time.sleep(0.1)
        else:
            return


def pairs_of(bodies: Sequence[bytes], items: Sequence[str]) -> list[tuple[str, str]]:
    """Return which user had which item in batches of events; every item is somebody's."""
    found = [
        (event["user_id"], line["item_id"])
        for body in bodies for event in orjson.loads(body) for line in event.get("items", ())
    ]  # fmt: skip
    users = list(dict.fromkeys(user for user, _ in found))
    return found + [(users[n % len(users)], item) for n, item in enumerate(items)]
