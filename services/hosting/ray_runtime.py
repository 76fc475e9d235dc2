"""Ray, Serve and HAProxy on this machine: what they are told, their start and their end."""

import contextlib
import io
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from feature_repo.errors import StoreUnavailableError
from services.hosting.embedded import free_port
from services.hosting.haproxy import write_launcher
from services.http import api_keys
from services.settings import Settings
from training.fit import local_ray

APPLICATION: Final = "portrait"
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024


def environment(settings: Settings, folder: Path, more: Mapping[str, str]) -> None:
    """Set what Ray and Serve read from the environment, before either is imported.

    Parameters
    ----------
    folder
        Private folder for sockets and configuration; its path must be short.
    more
        Further variables for every process of the service.
    """
    taken = {settings.port}

    def port() -> str:
        while (found := free_port()) in taken:
            pass
        taken.add(found)
        return str(found)

    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_launcher(folder, settings)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        # Nobody reads these, and each request would cost a line to the actor that reads them.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": port(),
        "RAY_SERVE_HAPROXY_STATS_PORT": port(),
        # Where HAProxy turns while no gateway is up: with Serve's fixed default, two services
        # on one machine would answer for each other.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": port(),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": port(),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "32768",  # the longest head of a request
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # The handlers never block, so they may share the loop that reads the sockets.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # On a busy machine a proxy is slow to start; Serve would kill it for that, and the start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        **dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TORCH_NUM_THREADS"), "1"
        ),
        **more,
    }
    os.environ.update(variables)
    os.environ.pop("RAY_ADDRESS", None)


def start_ray(folder: Path) -> None:
    """Start a Ray of our own; call `environment` first."""
    local_ray.start(
        num_cpus=max(2, len(os.sched_getaffinity(0))),
        logging_level="error",
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=str(folder / "ray"),
    )


def start_application(settings: Settings, url: str, drain_file: Path) -> None:
    """Start Serve and its HAProxy, and deploy the application.

    Parameters
    ----------
    drain_file
        While it exists, gateways say that they are not ready.

    Raises
    ------
    StoreUnavailableError
        If Serve gave up on a replica.
    """
    from ray import serve
    from ray.exceptions import RayError

    from services.app import build

    digest = None
    if settings.api_key is not None:
        digest = api_keys.digest(settings.api_key.get_secret_value())
    arguments = settings.model_dump(mode="json", exclude={"api_key", "redis_url"})
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    application = build(
        {
            **arguments,
            "redis_url": url,
            "admin_key_sha256": digest,
            "drain_file": str(drain_file),
        }
    )
    with _silence():
        try:
            # HAProxy alone is where others reach: see `services.hosting.haproxy`.
            serve.start(
                http_options={"host": local_ray.LOOPBACK, "port": settings.port},
                logging_config=quiet,
            )
            serve.run(application, name=APPLICATION, route_prefix="/", logging_config=quiet)
        except (RuntimeError, RayError) as error:
            raise StoreUnavailableError(
                "a process of the service ended while it was being started: start it again, and "
                "run `portrait doctor` if that does not help"
            ) from error


def stop_ray() -> None:
    """End Serve and Ray if they run."""
    if "ray" not in sys.modules:
        return
    import ray
    from ray import serve

    if ray.is_initialized():
        # Ray reports the end of its own controller as a failed task on stderr.
        with _silence(), contextlib.redirect_stderr(io.StringIO()):
            with contextlib.suppress(Exception):
                serve.shutdown()
            ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
