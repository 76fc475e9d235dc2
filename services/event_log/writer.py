"""Writing log entries to the server, or to each node of a cluster by itself.

Belongs here: the append script's calls, one a partition, and waiting for replicas. Which
events go together, and in which order, is `services.event_log.append`'s.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio
from redis.exceptions import ClusterDownError, MovedError, NoScriptError, RedisClusterException

from feature_repo.errors import StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_row import row_key
from feature_repo.online.lua import Call, Script
from services.event_log.keys import (
    SEEN_TTL_S,
    erased_key,
    log_key,
    owners_key,
    profiling_key,
    seen_keys,
    today,
)
from services.event_log.links import owner_of

WAIT_MS: Final = 300
"""Longest wait for replicas to confirm a group, below the client's own timeout."""
APPEND: Final = Script((Path(__file__).parent / "append.lua").read_text())
LINK: Final = Script((Path(__file__).parent / "link.lua").read_text())
_UNLINK: Final = Script((Path(__file__).parent / "unlink.lua").read_text())

Entry = tuple[int, str, str, bytes, str | None, str, bool, bytes, str]
"""Partition, dedup key, user, record, the linked anonymous id, if any, the anonymous id that sent
it or the empty string (``user`` itself, or the one from which it was moved to ``user``), and
whether the link is only claimed (`services.event_log.links.is_claimed`), what is kept of it where
profiling is denied, and "0" if it denies that (`services.event_log.unprofiled`)."""
_FAILED: Final = (redis.RedisError, RedisClusterException, OSError, StoreUnavailableError)


class LogWriter:
    """Sends entries and says what the server answered; see `services.event_log.append.Appender`.

    A part of a cluster that is away fails only the entries that belong there.
    """

    def __init__(
        self, client: Any, *, lag_limit: int, wait_replicas: int, profiled: bool = True
    ) -> None:
        self._profiled = profiled
        self._client = client
        self._lag_limit = lag_limit
        self._replicas = wait_replicas
        self._cluster = isinstance(client, redis.asyncio.RedisCluster)
        self._asking: asyncio.Task[None] | None = None

    async def link(
        self, pairs: Sequence[tuple[str, str, bool]]
    ) -> list[tuple[str, bool] | Exception | None]:
        """Make anonymous ids their users', each unless it is another's.

        It may lie in another slot than its user's log, where the append script cannot look.

        Parameters
        ----------
        pairs
            Anonymous ids, each with the user that an event names beside it, and whether that is
            only claimed.

        Returns
        -------
        list
            The owner of each anonymous id, and whether it is so since this call; None if it has
            been erased.
        """
        calls: list[Call] = []
        for anonymous, user, claim in pairs:
            partition = partition_of(anonymous)
            keys = [erased_key(partition), owners_key(partition), row_key(anonymous)]
            calls.append((keys, [anonymous, user, "~" if claim else ""]))
        answers = await self._run_script(LINK, calls)
        return [
            answer if isinstance(answer, Exception) else
            None if answer == b"x" else
            (owner_of(answer.removeprefix(b"!")) or "", answer.startswith(b"!"))
            for answer in answers
        ]  # fmt: skip

    async def unlink(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Take links back that were just made, of anonymous ids with users who are erased."""
        calls: list[Call] = [
            ([owners_key(partition_of(anonymous))], [anonymous, user]) for anonymous, user in pairs
        ]
        await self._run_script(_UNLINK, calls)

    async def write(
        self, groups: Sequence[tuple[int, Sequence[Entry]]]
    ) -> list[list[bytes] | Exception]:
        """Append each partition's entries in one step and return the script's answers.

        Parameters
        ----------
        groups
            Partitions, each once, with their entries in order.
        """
        calls = [
            append_call(
                partition, entries, lag_limit=self._lag_limit, replicas=self._replicas,
                cluster=self._cluster, profiled=self._profiled,
            )
            for partition, entries in groups
        ]  # fmt: skip
        return await self._run_script(APPEND, calls, self._replicas)

    async def _run_script(self, script: Script, calls: list[Call], replicas: int = 0) -> list[Any]:
        answers = await self._run(script, calls, replicas, whole=False)
        missing = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:
            again = await self._run(script, [calls[n] for n in missing], replicas, whole=True)
            for n, answer in zip(missing, again, strict=True):
                answers[n] = answer
        return answers

    async def _run(
        self, script: Script, calls: list[Call], replicas: int, *, whole: bool
    ) -> list[Any]:
        return await self._by_node(
            [keys[0] for keys, _ in calls],
            lambda pipe, n, options: script.queue(pipe, calls[n], whole=whole, **options),
            replicas=replicas,
        )

    async def _by_node(self, keys: Sequence[bytes], queue: Any, replicas: int = 0) -> list[Any]:
        """Send one command for each key, in one pipeline a node, and return all answers."""
        if not keys:
            return []
        if not self._cluster:
            return await self._pipe(None, range(len(keys)), queue, replicas)
        answers: list[Any] = [None] * len(keys)
        nodes: dict[Any, list[int]] = defaultdict(list)
        try:
            await self._client.initialize()
        except _FAILED as error:
            return [error] * len(keys)
        for n, key in enumerate(keys):
            try:
                nodes[self._client.get_node_from_key(key)].append(n)
            except _FAILED as error:
                answers[n] = error
                self._ask_again(None)

        async def send(node: Any, chosen: list[int]) -> None:
            for n, answer in zip(
                chosen, await self._pipe(node, chosen, queue, replicas), strict=True
            ):
                answers[n] = answer

        await asyncio.gather(*(send(node, chosen) for node, chosen in nodes.items()))
        return answers

    async def _pipe(self, node: Any, chosen: Sequence[int], queue: Any, replicas: int) -> list[Any]:
        options = {} if node is None else {"target_nodes": node}
        # A redirected command would run on another connection than its WAIT.
        direct = {"allow_redirections": False} if node is not None and replicas else {}
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for n in chosen:
                    queue(pipe, n, options)
                if replicas:
                    pipe.execute_command("WAIT", replicas, WAIT_MS, **options)
                answers = list(await pipe.execute(raise_on_error=False, **direct))
        except _FAILED as error:
            answers = [error] * (len(chosen) + bool(replicas))
        if node is not None:
            self._follow(node, answers)
        return _confirm(answers, replicas) if replicas else answers

    def _follow(self, node: Any, answers: list[Any]) -> None:
        """Find out where slots are now, when answers say that they are not where they were."""
        for answer in answers:
            if isinstance(answer, MovedError):
                self._client.nodes_manager.move_slot(answer)
            elif isinstance(
                answer, redis.ConnectionError | redis.TimeoutError | ClusterDownError | OSError
            ):
                self._ask_again(node)
                return

    def _ask_again(self, node: Any) -> None:
        if self._asking is not None and not self._asking.done():
            return
        manager = self._client.nodes_manager
        if node is not None:
            manager.move_node_to_end_of_cached_nodes(node.name)

        async def ask() -> None:
            with contextlib.suppress(*_FAILED):
                await manager.initialize()

        self._asking = asyncio.create_task(ask())


def append_call(
    partition: int,
    entries: Sequence[Entry],
    *,
    lag_limit: int,
    replicas: int,
    cluster: bool,
    profiled: bool = True,
) -> Call:
    """Return the append script's keys and arguments.

    On a server that is no part of a cluster the script looks whether the store, since an event was
    moved, has lost whose the anonymous id is: it would take the event, sent again, into the
    anonymous id's own log as well, or has done so. In a cluster that lies on another server.
    """
    day = today()
    seen = seen_keys(partition, day)
    keys = [log_key(partition), erased_key(partition), owners_key(partition), *seen]
    keys.append(profiling_key(partition))
    args: list[Any] = [
        SEEN_TTL_S, lag_limit, "1" if replicas else "0", len(seen), "1" if profiled else "0",
        int(time.time()),
    ]  # fmt: skip
    numbers = dict[int, int]()
    for _, name, user, record, _, sender, _, kept, denial in entries:
        mark = "1" if sender == user else ""
        if sender not in ("", user) and not cluster:
            home = partition_of(sender)
            if home not in numbers:
                numbers[home] = len(keys) + 1
                keys += [owners_key(home), *seen_keys(home, day)]
            mark = f"{numbers[home]} {sender}"
        args += (name, user, record, mark, kept, denial)
    return keys, args


def _confirm(answers: list[Any], replicas: int) -> list[Any]:
    """Return the answers before the last, or what the last says about the replicas."""
    *written, count = answers
    if isinstance(count, int) and count < replicas:
        count = StoreUnavailableError(
            f"{count} replicas confirmed the write within {WAIT_MS} ms, {replicas} must: "
            "repeat the request with the same event ids"
        )
    if not isinstance(count, Exception):
        return written
    return [one if isinstance(one, Exception) else count for one in written]
