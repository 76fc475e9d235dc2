"""The simulated server: the commands that the protocol uses, real Lua, a journal like the AOF.

One command, or one script, is one atomic step. Every step that changes something leaves its
effects in the journal, so that a power loss can forget the last of them (`forget`), as a real
server does that starts again from a shorter append-only file. An unknown command is an error:
add it here, and to the sequence in ``test_simulator_server`` that compares with a real one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lupa.lua51
import redis

from simulator.commands import HANDLERS, WRITES, Command
from simulator.streams import Stream

_BINARY = lupa.lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False)
_COMPILED: dict[bytes, Any] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """One atomic step of the server that changed something."""

    at_us: int
    effects: tuple[Command, ...]


class Server:
    """Data, scripts and journal of one server.

    Parameters
    ----------
    now_us
        The server's clock: microseconds since the epoch.
    rewrite
        What a script's text becomes before it runs: how a test takes a guard away.
    """

    def __init__(
        self, now_us: Callable[[], int], rewrite: Callable[[str], str] = lambda text: text
    ) -> None:
        self.now_us = now_us
        self._rewrite = rewrite
        self.data: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}
        self.scripts: dict[bytes, Any] = {}
        self.synced_us = 0
        self.journal: list[Step] = []
        self._effects: list[Command] = []
        self._api = _BINARY.table_from(
            {
                b"call": self._lua_call, b"pcall": self._lua_pcall, b"log": lambda *_: None,
                b"error_reply": _error_reply, b"status_reply": _status_reply,
            }
        )  # fmt: skip
        self.on_step: Callable[[Command, Any, tuple[Command, ...]], None] | None = None

    def execute(self, command: Command) -> Any:
        """Run one command; what a server answers as an error is raised as a ``RedisError``."""
        self._effects = []
        if self.expires:
            self._expire()
        try:
            reply = self.call(command)
        except redis.RedisError:
            self._commit(command, None)
            raise
        self._commit(command, reply)
        return reply

    def _commit(self, command: Command, reply: Any) -> None:
        effects = tuple(self._effects)
        if effects:
            self.journal.append(Step(self.now_us(), effects))
        if self.on_step is not None:
            self.on_step(command, reply, effects)

    def call(self, command: Command) -> Any:
        """Run one command inside the present step."""
        name = command[0].upper()
        handler = HANDLERS.get(name)
        if handler is None:
            raise redis.ResponseError(f"unknown command {command[0].decode()!r} in the simulator")
        reply = handler(self, command[1:])
        if name in WRITES:
            self.effect([name, *command[1:]])
        return reply

    def restart(self) -> None:
        """Come up again with the same data: scripts are forgotten."""
        self.scripts.clear()

    def forget(self, since_us: int) -> list[Step]:
        """Undo and return every step made after ``since_us``: a lost tail of the journal."""
        kept = next(
            (at for at, step in enumerate(self.journal) if step.at_us > since_us),
            len(self.journal),
        )
        lost, journal = self.journal[kept:], self.journal[:kept]
        self.data.clear()
        self.expires.clear()
        for step in journal:
            for command in step.effects:
                HANDLERS[command[0]](self, command[1:])
        self.journal = journal
        self.restart()
        return lost

    def effect(self, command: Command) -> None:
        """Note what the present step changed, in a form that repeats it exactly."""
        self._effects.append(command)

    def _expire(self) -> None:
        now_ms = self.now_us() // 1000
        for key in [key for key, at in self.expires.items() if at <= now_ms]:
            self.drop(key)
            self._effects.append([b"DEL", key])

    def drop(self, key: bytes) -> bool:
        """Delete a key; says whether it was there."""
        self.expires.pop(key, None)
        return self.data.pop(key, None) is not None

    def hash(self, key: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.data.get(key, {})
        return found

    def stream(self, key: bytes) -> Stream:
        found = self.data.get(key)
        return Stream() if found is None else found

    # scripts

    def load(self, text: bytes) -> bytes:
        """Keep a script and return its digest."""
        digest = hashlib.sha1(text).hexdigest().encode()
        rewritten = self._rewrite(text.decode()).encode()
        if rewritten not in _COMPILED:
            _COMPILED[rewritten] = _BINARY.eval(
                b"function(redis, KEYS, ARGV) " + rewritten + b"\nend"
            )
        self.scripts[digest] = _COMPILED[rewritten]
        return digest

    def run(self, digest: bytes, args: Command) -> Any:
        """Run a kept script: number of keys, keys, arguments."""
        script = self.scripts.get(digest)
        if script is None:
            raise redis.exceptions.NoScriptError("No matching script. Please use EVAL.")
        count = int(args[0])
        table = _BINARY.table_from
        return _from_lua(script(self._api, table(args[1 : count + 1]), table(args[count + 1 :])))

    def _lua_call(self, *args: Any) -> Any:
        return _to_lua(self.call([_argument(arg) for arg in args]))

    def _lua_pcall(self, *args: Any) -> Any:
        try:
            return self._lua_call(*args)
        except redis.RedisError as error:
            return _error_reply(str(error).encode())


def _argument(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%d" % int(value) if value.is_integer() else b"%.17g" % value
    return b"%d" % value


def _error_reply(text: bytes) -> Any:
    return _BINARY.table_from({b"err": text})


def _status_reply(text: bytes) -> Any:
    return _BINARY.table_from({b"ok": text})


def _to_lua(reply: Any) -> Any:
    if reply is None:
        return False
    if isinstance(reply, list):
        return _BINARY.table_from([_to_lua(each) for each in reply])
    return reply


def _from_lua(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, bytes):
        return value
    if isinstance(value, int | float):
        return int(value)
    if value[b"err"] is not None:
        raise redis.ResponseError(value[b"err"].decode())
    if value[b"ok"] is not None:
        return value[b"ok"]
    found = []
    for at in range(1, len(value) + 1):
        if value[at] is None:
            break
        found.append(_from_lua(value[at]))
    return found
