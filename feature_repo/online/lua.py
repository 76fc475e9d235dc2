"""Lua scripts: called by digest, sent whole to a server that does not know them.

A server forgets its scripts when it restarts, fails over or is told to; that must never be
an error. What a script does stands beside its one user.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import NoScriptError

Call = tuple[Sequence[Any], Sequence[Any]]
"""Keys and arguments of one call."""


class Script:
    """A Lua script."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run it once, with a client from `feature_repo.online.connection.connect`."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)

    async def run_async(self, client: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run it once, with a client from `feature_repo.online.connection.connect_async`."""
        try:
            return await client.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *args)

    def after(self, client: Any, commands: Iterable[Sequence[Any]], call: Call) -> Any:
        """Run it once, behind ``commands`` in the same round trip; their answers are not looked at.

        Parameters
        ----------
        client
            Of one server, not of a cluster.
        """
        with client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            self.queue(pipe, call)
            answer = pipe.execute(raise_on_error=False)[-1]
        if isinstance(answer, NoScriptError):
            keys, args = call
            return client.eval(self.text, len(keys), *keys, *args)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run_all(self, client: Any, calls: Sequence[Call]) -> list[Any]:
        """Run it once for each of ``calls`` in one round trip; a failed call gives its exception.

        Raises
        ------
        redis.RedisError, OSError
            If the connection fails; which calls ran is then unknown.
        """

        def send(chosen: Iterable[Call], *, whole: bool) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                for call in chosen:
                    self.queue(pipe, call, whole=whole)
                return list(pipe.execute(raise_on_error=False))

        answers = send(calls, whole=False)
        missing = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:
            again = send([calls[n] for n in missing], whole=True)
            for n, answer in zip(missing, again, strict=True):
                answers[n] = answer
        return answers

    def queue(self, pipe: Any, call: Call, *, whole: bool = False, **options: Any) -> None:
        """Add one call to a pipeline; ``whole`` sends the text in place of the digest."""
        keys, args = call
        command = ("EVAL", self.text) if whole else ("EVALSHA", self.digest)
        pipe.execute_command(*command, len(keys), *keys, *args, **options)
