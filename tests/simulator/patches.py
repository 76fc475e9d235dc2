"""While a run lasts: the fake clock is all the time there is, greenlets are all the threads."""

import asyncio
import functools
import importlib.metadata
import os
import random
import time
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import redis.client
import redis.retry

from services.audiences.watch import AudienceWatch
from simulator.world import Task, World


class SimEvent:
    """``threading.Event`` on the fake clock."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        return self._world.wait(self.is_set, timeout)


class SimThread:
    """``threading.Thread`` as one more task of the process that makes it."""

    def __init__(
        self, world: World, target: Callable[..., None], args: tuple[Any, ...] = (), **_: Any
    ) -> None:
        self._world = world
        self._work = lambda: target(*args)
        self._task: Task | None = None

    def start(self) -> None:
        assert self._world.current is not None
        self._task = self._world.spawn(self._world.current.process, self._work)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done

    def join(self, timeout: float | None = None) -> None:
        self._world.wait(lambda: not self.is_alive(), timeout)


class SimLock:
    """``threading.Lock`` between greenlets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False

    def acquire(self) -> bool:
        self._world.wait(lambda: not self._held)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimLoop(asyncio.BaseEventLoop):
    """An asyncio loop whose waiting is the scheduler's."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._selector = self
        # A step of the fake clock. asyncio's nanosecond is lost in a float of so many seconds: a
        # timer due this very microsecond would wait for a clock that stands still.
        self._clock_resolution = 1e-6
        self.set_exception_handler(lambda loop, context: None)  # the dead tell nothing

    def time(self) -> float:
        return self._world.now_us / 1e6

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise AssertionError("a coroutine waits for something that nobody will do")
        if timeout > 0:
            self._world.sleep(timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def shut(self) -> None:
        """Close with whatever is pending, silently: the process is dead."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.get_coro().close()  # type: ignore[union-attr]
        self.close()


def threads(world: World) -> Any:
    """Return what stands for the module ``threading``."""
    return types.SimpleNamespace(
        Event=lambda: SimEvent(world),
        Thread=lambda *args, **kwargs: SimThread(world, *args, **kwargs),
        Lock=lambda: SimLock(world),
        RLock=lambda: SimLock(world),
    )


@contextmanager
def patched(world: World, modules: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Put the fake clock, threads and randomness in place, and ``modules``' own stand-ins.

    Parameters
    ----------
    modules
        Module name to the attributes that are replaced in it.
    """
    ids = random.Random(world.rng.random())
    with ExitStack() as stack:

        def put(target: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        put(time, "time_ns", lambda: world.now_us * 1000)
        put(time, "time", lambda: world.now_us / 1e6)
        put(time, "monotonic", lambda: world.now_us / 1e6)
        put(time, "sleep", world.sleep)
        put(redis.retry, "sleep", world.sleep)
        put(redis.client, "record_operation_duration", lambda **_: None)
        put(redis.client, "record_error_count", lambda **_: None)
        put(os, "getpid", lambda: 1)
        # redis-py asks for its own version at every connection, and reads a file for that.
        put(importlib.metadata, "version", functools.cache(importlib.metadata.version))
        # Audiences change neither log nor rows; that they are told is tested on a real store.
        put(AudienceWatch, "refresh", lambda _: None)
        put(uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128)))
        for module, replaced in modules.items():
            for name, value in replaced.items():
                stack.enter_context(mock.patch(f"{module}.{name}", value))
        yield
