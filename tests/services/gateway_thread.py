"""A gateway under uvicorn and an updater thread, over a real server and without Ray."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn

from feature_repo.online.connection import connect
from services.client import Client
from services.gateway.application import create_app
from services.hosting.embedded import free_port
from services.http import api_keys
from services.models import loaded
from services.settings import Settings
from services.update.erasures import Erasures
from services.update.model_follower import ModelFollower
from services.update.updater import UpdaterLoop

ADMIN_KEY = "test-admin"


class Api:
    """A running gateway; `updater` runs beside it unless stopped.

    Parameters
    ----------
    wrap
        Put around the application, as Ray Serve would be.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        wrap: Callable[[Any], Any] = lambda app: app,
        drain_file: Path | None = None,
    ) -> None:
        self.settings = settings
        self.url = url
        self.port = free_port()
        app = wrap(create_app(settings, url, api_keys.digest(ADMIN_KEY), drain_file=drain_file))
        config = uvicorn.Config(app, port=self.port, log_level="warning", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._loop: UpdaterLoop | None = None
        self._worker: threading.Thread | None = None

    def _serve(self) -> None:
        asyncio.run(self._server.serve())

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the gateway did not start")
            threading.Event().wait(0.01)

    @property
    def loop_thread(self) -> int:
        """Identity of the thread that the gateway's event loop runs in."""
        assert self._thread.ident is not None
        return self._thread.ident

    def start_updater(self) -> None:
        with closing(connect(self.url)) as store:
            transition = loaded.begin(self.settings, store)
        self._loop = UpdaterLoop(self.settings, self.url, transition)
        self._worker = threading.Thread(target=self._loop.run, daemon=True)
        self._worker.start()
        self._erasures = Erasures(self.settings, self.url, self._loop.forget_people)
        self._erasures.start()
        self._models = ModelFollower(self.settings, self.url, transition, self._loop.partitions)
        self._models.start()

    def stop_updater(self) -> None:
        if self._loop is not None and self._worker is not None:
            self._erasures.stop()
            self._models.stop()
            self._loop.stop()
            self._worker.join(timeout=10)
            self._loop = None

    def stop(self) -> None:
        self.stop_updater()
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def client(self, key: str = ADMIN_KEY, attempts: int = 1) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", key, attempts=attempts)
