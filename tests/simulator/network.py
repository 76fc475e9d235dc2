"""Connections of redis-py that lead to the simulated server, and what goes wrong on the way."""

import copy
import functools
from collections import deque
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from feature_repo.online.connection import connect, connect_async
from simulator.commands import Command, reads
from simulator.scripts import shown
from simulator.world import Killed, Process, World

URL = "redis://simulated:1/0"
_LATE_US = 1_000_000


class Faults:
    """How often a request or its answer is lost or late, each per request."""

    def __init__(self, *, lost: float = 0.0, late: float = 0.0) -> None:
        self.lost = lost
        self.late = late


class Wire:
    """Requests of one connection on their way to the server."""

    def __init__(self, world: World, process: Process, faults: Faults) -> None:
        self.world = world
        self.process = process
        self.faults = faults
        self.generation = -1
        self._queue: deque[Command] = deque()

    def connect(self) -> None:
        if not self.world.server_up:
            raise redis.ConnectionError("refused")
        self.generation = self.world.generation

    def close(self) -> None:
        self.generation = -1
        self._queue.clear()

    def send(self, commands: list[Command]) -> None:
        if self.generation < 0:
            self.connect()
        self._queue.extend(commands)

    def receive(self, timeout_s: float) -> Any:
        """Let the next request reach the server and return the answer.

        Raises
        ------
        redis.RedisError
            What the server answers, or that it does not.
        """
        world, command = self.world, self._queue.popleft()
        try:
            world.pause(sending=command)
        except Killed:
            if world.rng.random() < 0.5:  # it was under way already
                world.deliver_later([command, *self._queue], 200_000)
            raise
        self._check()
        chance = world.rng.random()
        if chance < self.faults.late:
            world.note("late request", f"{self.process.name}: {shown(command)}")
            world.deliver_later([command, *self._queue], _LATE_US)
            self._queue.clear()
            world.sleep(timeout_s)
            raise redis.TimeoutError("no answer in time")
        if chance < self.faults.late + self.faults.lost / 2:
            self._lose("lost request", command)
        if command[0] == b"XREAD":
            self._block(command)
        world.say(f"{self.process.name}: {shown(command)}")
        reply = world.server.execute(command)
        if chance < self.faults.late + self.faults.lost:
            self._lose("lost answer", command)
        return reply

    def _lose(self, what: str, command: Command) -> None:
        self.world.note(what, f"{self.process.name}: {shown(command)}")
        self._queue.clear()
        raise redis.ConnectionError(what)

    def _check(self) -> None:
        if not self.world.server_up or self.generation != self.world.generation:
            self._queue.clear()
            raise redis.ConnectionError("the server went away")

    def _block(self, command: Command) -> None:
        _, block_ms, wanted = reads(command[1:])
        if block_ms is None:
            return
        streams, last = self.world.server, dict(wanted)

        def ready() -> bool:
            if not self.world.server_up or self.generation != self.world.generation:
                return True
            return any(
                streams.stream(key).last > tuple(map(int, text.split(b"-")))
                for key, text in last.items()
            )

        self.world.wait(ready, block_ms / 1000)
        self._check()


class SimConnection(redis.Connection):
    """A connection of the synchronous client."""

    def __init__(self, *args: Any, wire: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wire: Wire = wire()

    def connect(self) -> None:
        self.retry.call_with_retry(self.wire.connect, lambda error: None)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self.connect()

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        if hasattr(self, "wire"):
            self.wire.close()

    def can_read(self, timeout: float = 0) -> bool:
        return False

    def pack_command(self, *args: Any) -> list[Command]:
        return [_packed(self, args)]

    def pack_commands(self, commands: Any) -> list[Command]:
        return [_packed(self, args) for args in commands]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self.wire.send(command)

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.wire.send([_packed(self, args)])

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return self.wire.receive(self.socket_timeout or 5.0)


class SimAsyncConnection(redis.asyncio.Connection):
    """A connection of the asyncio client; it gives way to the scheduler, not to its loop."""

    def __init__(self, *args: Any, wire: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wire: Wire = wire()

    @property
    def is_connected(self) -> bool:
        return self.wire.generation >= 0

    async def connect(self) -> None:
        async def attempt() -> None:
            self.wire.connect()

        async def failed(error: Exception) -> None:
            return None

        await self.retry.call_with_retry(attempt, failed)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self.wire.close()

    async def can_read_destructive(self) -> bool:
        return False

    def pack_command(self, *args: Any) -> list[Command]:
        return [_packed(self, args)]

    def pack_commands(self, commands: Any) -> list[Command]:
        return [_packed(self, args) for args in commands]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self.wire.send(command)

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.wire.send([_packed(self, args)])

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return self.wire.receive(self.socket_timeout or 5.0)


class SimPool(redis.connection.ConnectionPool):
    """The pool without its statistics and locks: they take a third of a run's time."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        free = self._available_connections
        connection = free.pop() if free else self.connection_class(**self.connection_kwargs)
        try:
            connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        self._available_connections.append(connection)


class SimAsyncPool(redis.asyncio.connection.ConnectionPool):
    """See `SimPool`."""

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        free = self._available_connections
        connection = free.pop() if free else self.connection_class(**self.connection_kwargs)
        try:
            await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        self._available_connections.append(connection)


def _packed(connection: Any, args: Any) -> Command:
    name, *rest = args
    encode = connection.encoder.encode
    words = name.encode().split() if isinstance(name, str) else [name]
    return [*words, *map(encode, rest)]


@functools.cache
def _client(timeout_s: float) -> Any:
    return connect(URL, timeout_s=timeout_s)


@functools.cache
def _async_client() -> Any:
    return connect_async(URL)


def client(world: World, process: Process, faults: Faults, timeout_s: float) -> Any:
    """Return a synchronous client of ``process``, with the product's own retries."""
    made = copy.copy(_client(timeout_s))  # a new one takes long to make
    kwargs = made.connection_pool.connection_kwargs
    made.connection_pool = SimPool(
        SimConnection, **kwargs, wire=lambda: Wire(world, process, faults)
    )
    return made


def async_client(world: World, process: Process, faults: Faults) -> Any:
    """Return an asyncio client of ``process``."""
    made = copy.copy(_async_client())
    kwargs = made.connection_pool.connection_kwargs
    made.connection_pool = SimAsyncPool(
        SimAsyncConnection, **kwargs, wire=lambda: Wire(world, process, faults)
    )
    return made
