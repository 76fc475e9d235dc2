"""A Ray for this machine alone: every one that Portrait starts listens on loopback.

Belongs here: where Ray's processes listen, their token, start and end. Not here: what runs on
Ray, and the Ray of a cluster, whose own administrator says where it listens.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psutil

from training.fit.signals import restore_signals

LOOPBACK: Final = "127.0.0.1"
_TOKEN: Final = "RAY_AUTH_TOKEN"  # noqa: S105 - the variable's name
_VITAL: Final = ("gcs_server", "raylet")


def start(**given: Any) -> None:
    """Start a Ray of our own, which nobody reaches from outside, nor within without its token."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault(_TOKEN, secrets.token_hex(32))
    import ray
    from ray._private import services
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")  # has the mode read anew, should Ray have been imported before
    # Ray takes loopback for a mistake and puts the machine's address in its place, and a Ray
    # with any other address than loopback listens on all interfaces.
    services.resolve_ip_for_localhost = lambda host: host
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address=LOOPBACK,
        **given,
    )


@contextmanager
def using(**given: Any) -> Iterator[None]:
    """Use the Ray there is, or that RAY_ADDRESS names, or for the while one made of ``given``."""
    import ray

    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS", "local")
        with restore_signals():
            if address == "local":
                start(configure_logging=False, **given)
            else:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def keep_replica_within() -> None:
    """Have Serve's replica in this process listen on loopback where its Ray does."""
    import ray
    from ray.serve._private import replica

    listen = replica.add_port_to_grpc_server
    if ray.util.get_node_ip_address() == LOOPBACK:
        replica.add_port_to_grpc_server = lambda server, address: listen(
            server, address.replace("[::]", LOOPBACK)
        )


def vital() -> dict[str, int]:
    """Return name and process id of what our own Ray cannot be without."""
    from ray._private import worker

    node = worker._global_node  # noqa: SLF001 - Ray tells nobody its process ids
    return {name: node.all_processes[name][0].process.pid for name in _VITAL}


def kill() -> None:
    """Kill our own Ray, with all that runs on it; for one that no longer hears."""
    token = os.environ[_TOKEN]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(_TOKEN) == token:
                process.kill()
