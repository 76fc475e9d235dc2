"""The simulated server against a real one: equal answers, and equal data after a restart."""

import random
from typing import Any

import pytest
import redis
from simulator.commands import HANDLERS, Command
from simulator.server import Server

from feature_repo.online.live_rows import _COMMIT
from services.event_log.writer import APPEND
from services.update.lease import _BEAT

SEQUENCES = 60
LENGTH = 60
_CLOCK = {b"TIME", b"EXPIRE", b"PEXPIREAT", b"WAIT", b"WAITAOF", b"SCRIPT EXISTS", b"SCRIPT LOAD"}
"""Compared in tests of their own, or the simulator's own spelling."""

SCRIPTS = [
    b"return {1, 2.9, -2.9, 'x', false, 3}",  # a false in a table is null
    b"return {1, nil, 3}",  # a nil ends it
    b"return {true, '', 0, {1, {'deep'}}}",
    b"return false",
    b"return nil",
    b"return 3.99",
    b"return tonumber('12') + 0.5",
    b"return redis.status_reply('FINE')",
    b"return redis.error_reply('ERR mine')",
    b"return {err = 'ERR made'}",
    b"return redis.call('HGET', KEYS[1], 'none')",
    b"return redis.call('HGET', KEYS[1], 'none') == false and 1 or 0",
    b"return redis.call('HMGET', KEYS[1], 'a', 'none', 'b')",
    b"redis.call('HSET', KEYS[1], 'n', 12) return redis.call('HGET', KEYS[1], 'n')",
    b"redis.call('HSET', KEYS[1], 'n', 2^40) return redis.call('HGET', KEYS[1], 'n')",
    b"redis.call('HSET', KEYS[1], 'n', 1.5) return redis.call('HGET', KEYS[1], 'n')",
    b"return redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)",
    b"return #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])",
    b"return redis.call('XADD', KEYS[2], ARGV[1], 'e', ARGV[2])",
    b"local r = redis.pcall('XADD', KEYS[2], '0-1', 'e', 'x') return r.err and 1 or r",
    b"return redis.call('HINCRBY', KEYS[1], 'word', 1)",
    b"return redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[1])",
    b"return {#KEYS, #ARGV, ARGV[3] or 'no third'}",
]


RANGE = b"return redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2])"


def draw(rng: random.Random) -> Command:
    """Return one command on a few keys, so that they meet."""
    hashed, stream, text, sets, scored = (
        b"{p}h%d" % rng.randrange(2),
        b"{p}s",
        b"{p}t",
        b"{p}m",
        b"{p}z",
    )
    field = rng.choice((b"a", b"b", b"word", b"n"))
    at = b"%d-%d" % (rng.randrange(1, 6), rng.randrange(3))
    bound = rng.choice((b"-", b"+", at, b"(" + at, at.split(b"-")[0]))
    start = rng.choice((b"-", at, b"(" + at, at.split(b"-")[0]))
    end = rng.choice((b"+", at, b"(" + at, at.split(b"-")[0]))
    value = rng.choice((b"", b"1", b"\x00\xff", b"long" * 9))
    number = b"%d" % rng.randrange(-2, 4)
    score = rng.choice((b"-inf", b"+inf", b"1", b"(1", b"2.5"))
    return rng.choice((
        [b"PING"], [b"GET", text], [b"SET", text, number], [b"INCR", text],
        [b"INCRBY", text, number],
        [b"DEL", rng.choice((hashed, text, sets, scored))], [b"EXISTS", hashed, stream],
        [b"HGET", hashed, field], [b"HMGET", hashed, field, b"a"], [b"HEXISTS", hashed, field],
        [b"HLEN", hashed], [b"HGETALL", hashed], [b"HSET", hashed, field, value, b"b", b"2"],
        [b"HSETNX", hashed, field, value], [b"HDEL", hashed, field, b"a"],
        [b"HINCRBY", hashed, b"n", number], [b"HINCRBY", hashed, b"word", number],
        [b"SADD", sets, field, value], [b"SISMEMBER", sets, field],
        [b"SMISMEMBER", sets, field, value], [b"SMEMBERS", sets], [b"SREM", sets, field, value],
        [b"ZADD", scored, number, field], [b"ZREM", scored, field], [b"ZCARD", scored],
        [b"ZCOUNT", scored, score, b"+inf"], [b"ZSCORE", scored, field],
        [b"ZRANGE", scored, b"0", b"-1"], [b"ZRANGEBYSCORE", scored, b"-inf", score],
        [b"ZREMRANGEBYSCORE", scored, b"-inf", score],
        [b"XADD", stream, at, b"e", value], [b"XADD", stream, at, b"e", value],
        [b"XLEN", stream], [b"XRANGE", stream, start, end],
        [b"XRANGE", stream, start, end, b"COUNT", b"2"],
        [b"XREVRANGE", stream, end, start, b"COUNT", b"1"], [b"XDEL", stream, at],
        [b"XTRIM", stream, b"MINID", b"=", at], [b"XTRIM", stream, b"MINID", at],
        [b"XINFO", b"STREAM", stream], [b"XREAD", b"COUNT", b"2", b"STREAMS", stream, at],
        [b"XREAD", b"STREAMS", stream, b"{p}none", at, b"0-0"],
        [b"PUBLISH", b"channel", value],
        [b"EVAL", rng.choice(SCRIPTS), b"2", hashed, stream, at, value],
        [b"EVALSHA", b"0" * 40, b"0"], [b"SCRIPT", b"EXISTS", b"0" * 40],
        [b"EVAL", RANGE, b"1", stream, bound, end],
    ))  # fmt: skip


def told(execute: Any, command: Command) -> Any:
    """Return an answer in a form that compares: errors by their kind, no unsimulated fields."""
    try:
        answer = execute(command)
    except redis.exceptions.NoScriptError:
        return "no script"
    except redis.ResponseError:
        return "error"
    if command[0] == b"XINFO":
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        return [fields[name] for name in XINFO]
    if command[0] == b"SMEMBERS":
        return sorted(answer)
    if command[0] == b"HGETALL":
        return dict(zip(answer[::2], answer[1::2], strict=True))
    return answer


XINFO = (b"length", b"last-generated-id", b"entries-added", b"first-entry", b"last-entry")


def raw(client: redis.Redis) -> Any:
    """Return a function that sends a command and returns the server's own answer."""
    connection = client.connection_pool.get_connection()

    def execute(command: Command) -> Any:
        connection.send_command(*command)
        answer = connection.read_response()
        if isinstance(answer, Exception):
            raise answer
        return answer

    return execute


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_answers_are_those_of_a_real_server(store_client: redis.Redis, seed: int) -> None:
    rng, execute = random.Random(seed), raw(store_client)
    server = Server(lambda: 1_000_000)
    for n in range(LENGTH):
        command = draw(rng)
        assert told(server.execute, command) == told(execute, command), (seed, n, command)


def test_every_command_is_compared() -> None:
    drawn = {draw(random.Random(n))[0] for n in range(5_000)}
    assert HANDLERS.keys() - drawn == _CLOCK


def test_a_stream_id_comes_from_the_clock_and_never_goes_back() -> None:
    now = 5_000_000
    server = Server(lambda: now)
    add = [b"XADD", b"s", b"*", b"e", b""]
    assert [server.execute(add), server.execute(add)] == [b"5000-0", b"5000-1"]
    now = 4_000_000
    assert server.execute(add) == b"5000-2"
    now = 5_001_000
    assert server.execute(add) == b"5001-0"


def test_keys_expire_by_the_clock() -> None:
    now = 0
    server = Server(lambda: now)
    server.execute([b"HSET", b"h", b"a", b"1"])
    assert server.execute([b"EXPIRE", b"h", b"2"]) == 1
    now = 1_999_000
    assert server.execute([b"EXISTS", b"h"]) == 1
    now = 2_000_000
    assert server.execute([b"EXISTS", b"h"]) == 0


@pytest.mark.parametrize("script", [APPEND, _COMMIT, _BEAT], ids=["append", "commit", "beat"])
def test_a_script_is_unknown_until_it_is_sent_and_after_a_restart(script: Any) -> None:
    server = Server(lambda: 0)
    digest = script.digest.encode()
    assert told(server.execute, [b"EVALSHA", digest, b"0"]) == "no script"
    assert server.execute([b"SCRIPT", b"LOAD", script.text.encode()]) == digest
    assert server.execute([b"SCRIPT", b"EXISTS", digest]) == [1]
    server.restart()
    assert server.execute([b"SCRIPT", b"EXISTS", digest]) == [0]


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_what_is_forgotten_leaves_the_data_of_a_shorter_run(seed: int) -> None:
    """A lost tail of the journal: as if the later commands had never come."""
    rng, now = random.Random(seed), 0
    commands = [draw(rng) for _ in range(LENGTH)]
    kept = rng.randrange(LENGTH)
    whole, prefix = Server(lambda: now), Server(lambda: now)
    for n, command in enumerate(commands):
        now = n * 1000
        told(whole.execute, command)
        if n <= kept:
            told(prefix.execute, command)
    whole.forget(kept * 1000)
    for key in (b"{p}h0", b"{p}h1", b"{p}s", b"{p}t", b"{p}m", b"{p}z"):
        assert plain(whole, key) == plain(prefix, key)


def plain(server: Server, key: bytes) -> Any:
    found = server.data.get(key)
    return vars(found) if hasattr(found, "ids") else found
