"""What each command does to the simulated server's data."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis

from simulator.streams import Stream, format_id, parse_id

if TYPE_CHECKING:
    from simulator.server import Server

Command = list[bytes]
Handler = Callable[["Server", Command], Any]

HANDLERS: dict[bytes, Handler] = {}
WRITES = set[bytes]()


def command(name: str, *, writes: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler; the effect of one that ``writes`` is the command itself."""

    def register(handler: Handler) -> Handler:
        HANDLERS[name.encode()] = handler
        if writes:
            WRITES.add(name.encode())
        return handler

    return register


def _int(value: bytes | None) -> int:
    try:
        return 0 if value is None else int(value)
    except ValueError:
        raise redis.ResponseError("value is not an integer or out of range") from None


# the server itself


@command("PING")
def _ping(server: "Server", args: Command) -> Any:
    return b"PONG"


@command("TIME")
def _time(server: "Server", args: Command) -> Any:
    seconds, micros = divmod(server.now_us(), 1_000_000)
    return [b"%d" % seconds, b"%d" % micros]


@command("PUBLISH")
def _publish(server: "Server", args: Command) -> Any:
    return 0


@command("WAIT")
def _wait(server: "Server", args: Command) -> Any:
    return 0


@command("WAITAOF")
def _waitaof(server: "Server", args: Command) -> Any:
    server.synced_us = server.now_us()
    return [1, 0]


@command("EVALSHA")
def _evalsha(server: "Server", args: Command) -> Any:
    return server.run(args[0], args[1:])


@command("EVAL")
def _eval(server: "Server", args: Command) -> Any:
    return server.run(server.load(args[0]), args[1:])


@command("SCRIPT")
def _script(server: "Server", args: Command) -> Any:
    if args[0].upper() == b"EXISTS":
        return [int(each in server.scripts) for each in args[1:]]
    return server.load(args[1])


@command("SCRIPT EXISTS")
def _script_exists(server: "Server", args: Command) -> Any:
    return [int(each in server.scripts) for each in args]


@command("SCRIPT LOAD")
def _script_load(server: "Server", args: Command) -> Any:
    return server.load(args[0])


# keys and strings


@command("GET")
def _get(server: "Server", args: Command) -> Any:
    return server.data.get(args[0])


@command("SET", writes=True)
def _set(server: "Server", args: Command) -> Any:
    server.data[args[0]] = args[1]
    return b"OK"


@command("INCRBY", writes=True)
def _incrby(server: "Server", args: Command) -> Any:
    value = _int(server.data.get(args[0])) + _int(args[1])
    server.data[args[0]] = b"%d" % value
    return value


@command("INCR", writes=True)
def _incr(server: "Server", args: Command) -> Any:
    return _incrby(server, [args[0], b"1"])


@command("DEL", writes=True)
def _del(server: "Server", args: Command) -> Any:
    return sum(server.drop(key) for key in args)


@command("EXISTS")
def _exists(server: "Server", args: Command) -> Any:
    return sum(key in server.data for key in args)


@command("EXPIRE")
def _expire(server: "Server", args: Command) -> Any:
    return _pexpireat(server, [args[0], b"%d" % (server.now_us() // 1000 + _int(args[1]) * 1000)])


@command("PEXPIREAT")
def _pexpireat(server: "Server", args: Command) -> Any:
    if args[0] not in server.data:
        return 0
    server.expires[args[0]] = _int(args[1])
    server.effect([b"PEXPIREAT", args[0], args[1]])
    return 1


# hashes


@command("HGET")
def _hget(server: "Server", args: Command) -> Any:
    return server.hash(args[0]).get(args[1])


@command("HMGET")
def _hmget(server: "Server", args: Command) -> Any:
    found = server.hash(args[0])
    return [found.get(field) for field in args[1:]]


@command("HGETALL")
def _hgetall(server: "Server", args: Command) -> Any:
    return [part for pair in server.hash(args[0]).items() for part in pair]


@command("HEXISTS")
def _hexists(server: "Server", args: Command) -> Any:
    return int(args[1] in server.hash(args[0]))


@command("HLEN")
def _hlen(server: "Server", args: Command) -> Any:
    return len(server.hash(args[0]))


@command("HSET", writes=True)
def _hset(server: "Server", args: Command) -> Any:
    found = server.data.setdefault(args[0], {})
    before = len(found)
    found.update(zip(args[1::2], args[2::2], strict=True))
    return len(found) - before


@command("HSETNX", writes=True)
def _hsetnx(server: "Server", args: Command) -> Any:
    found = server.data.setdefault(args[0], {})
    if args[1] in found:
        return 0
    found[args[1]] = args[2]
    return 1


@command("HDEL", writes=True)
def _hdel(server: "Server", args: Command) -> Any:
    found = server.hash(args[0])
    count = sum(found.pop(field, None) is not None for field in args[1:])
    if args[0] in server.data and not found:
        server.drop(args[0])
    return count


@command("HINCRBY", writes=True)
def _hincrby(server: "Server", args: Command) -> Any:
    found = server.data.setdefault(args[0], {})
    value = _int(found.get(args[1])) + _int(args[2])
    found[args[1]] = b"%d" % value
    return value


# sets and sorted sets


@command("SADD", writes=True)
def _sadd(server: "Server", args: Command) -> Any:
    found = server.data.setdefault(args[0], set())
    before = len(found)
    found.update(args[1:])
    return len(found) - before


@command("SISMEMBER")
def _sismember(server: "Server", args: Command) -> Any:
    return int(args[1] in server.data.get(args[0], ()))


@command("SMISMEMBER")
def _smismember(server: "Server", args: Command) -> Any:
    return [int(member in server.data.get(args[0], ())) for member in args[1:]]


@command("SMEMBERS")
def _smembers(server: "Server", args: Command) -> Any:
    return sorted(server.data.get(args[0], ()))


@command("SREM", writes=True)
def _srem(server: "Server", args: Command) -> Any:
    found = server.data.get(args[0], set())
    before = len(found)
    found.difference_update(args[1:])
    if args[0] in server.data and not found:
        server.drop(args[0])
    return before - len(found)


def _scored(server: "Server", key: bytes) -> list[tuple[float, bytes]]:
    return sorted((score, member) for member, score in server.hash(key).items())  # type: ignore[misc]


def _bound(text: bytes) -> tuple[float, bool]:
    return float(text.lstrip(b"(")), text[:1] == b"("


def _in_score(score: float, low: bytes, high: bytes) -> bool:
    bottom, above = _bound(low)
    top, below = _bound(high)
    over = score > bottom if above else score >= bottom
    return over and (score < top if below else score <= top)


@command("ZADD", writes=True)
def _zadd(server: "Server", args: Command) -> Any:
    found = server.data.setdefault(args[0], {})
    before = len(found)
    for score, member in zip(args[1::2], args[2::2], strict=True):
        found[member] = float(score)
    return len(found) - before


@command("ZREM", writes=True)
def _zrem(server: "Server", args: Command) -> Any:
    return _hdel(server, args)


@command("ZCARD")
def _zcard(server: "Server", args: Command) -> Any:
    return len(server.hash(args[0]))


@command("ZCOUNT")
def _zcount(server: "Server", args: Command) -> Any:
    return sum(_in_score(score, args[1], args[2]) for score, _ in _scored(server, args[0]))


@command("ZSCORE")
def _zscore(server: "Server", args: Command) -> Any:
    score: Any = server.hash(args[0]).get(args[1])
    return None if score is None else b"%.17g" % score


@command("ZRANGE")
def _zrange(server: "Server", args: Command) -> Any:
    members = [member for _, member in _scored(server, args[0])]
    start, stop = _int(args[1]), _int(args[2])
    return members[start : None if stop == -1 else stop + 1]


@command("ZRANGEBYSCORE")
def _zrangebyscore(server: "Server", args: Command) -> Any:
    return [m for score, m in _scored(server, args[0]) if _in_score(score, args[1], args[2])]


@command("ZREMRANGEBYSCORE", writes=True)
def _zremrangebyscore(server: "Server", args: Command) -> Any:
    gone = _zrangebyscore(server, args)
    return _hdel(server, [args[0], *gone]) if gone else 0


# streams


@command("XADD")
def _xadd(server: "Server", args: Command) -> Any:
    at = 1
    while args[at].upper() in (b"NOMKSTREAM", b"MAXLEN", b"MINID"):
        if args[at].upper() != b"NOMKSTREAM":
            raise redis.ResponseError("XADD with trimming is not simulated")
        at += 1
    stream = server.data.setdefault(args[0], Stream())
    given = stream.add(args[at], server.now_us() // 1000, args[at + 1 :])
    if given is None:
        raise redis.ResponseError("The ID specified in XADD is equal or smaller than the target")
    server.effect([b"XADD", args[0], format_id(given), *args[at + 1 :]])
    return format_id(given)


@command("XLEN")
def _xlen(server: "Server", args: Command) -> Any:
    return len(server.stream(args[0]).ids)


def _count(args: Command) -> int:
    return _int(args[1]) if args and args[0].upper() == b"COUNT" else 1 << 60


@command("XRANGE")
def _xrange(server: "Server", args: Command) -> Any:
    stream = server.stream(args[0])
    low, high = stream.between(args[1], args[2])
    return stream.reply(low, min(high, low + _count(args[3:])))


@command("XREVRANGE")
def _xrevrange(server: "Server", args: Command) -> Any:
    stream = server.stream(args[0])
    low, high = stream.between(args[2], args[1])
    return stream.reply(max(low, high - _count(args[3:])), high)[::-1]


@command("XDEL", writes=True)
def _xdel(server: "Server", args: Command) -> Any:
    return sum(server.stream(args[0]).remove(parse_id(each)) for each in args[1:])


@command("XTRIM", writes=True)
def _xtrim(server: "Server", args: Command) -> Any:
    stream = server.stream(args[0])
    limit = args[3] if args[2] in (b"=", b"~") else args[2]
    if args[1].upper() == b"MINID":
        return stream.cut(stream.between(b"-", b"(" + limit)[1])
    return stream.cut(max(0, len(stream.ids) - _int(limit)))


@command("XINFO")
def _xinfo(server: "Server", args: Command) -> Any:
    stream = server.data.get(args[1])
    if stream is None:
        raise redis.ResponseError("no such key")
    return [
        b"length", len(stream.ids), b"last-generated-id", format_id(stream.last),
        b"entries-added", stream.added, b"groups", 0,
        b"first-entry", next(iter(stream.reply(0, 1)), None),
        b"last-entry", next(iter(stream.reply(max(0, len(stream.ids) - 1), len(stream.ids))), None),
    ]  # fmt: skip


def reads(args: Command) -> tuple[int, int | None, list[tuple[bytes, bytes]]]:
    """Return count, block time in ms (None: do not wait) and (stream, id) pairs of an XREAD."""
    count, block, at = 1 << 60, None, 0
    while args[at].upper() != b"STREAMS":
        if args[at].upper() == b"COUNT":
            count = _int(args[at + 1])
        else:
            block = _int(args[at + 1])
        at += 2
    names = args[at + 1 :]
    half = len(names) // 2
    return count, block, list(zip(names[:half], names[half:], strict=True))


@command("XREAD")
def _xread(server: "Server", args: Command) -> Any:
    count, _, wanted = reads(args)
    found = []
    for key, last in wanted:
        stream = server.stream(key)
        low = stream.after(parse_id(last))
        if low < len(stream.ids):
            found.append([key, stream.reply(low, low + count)])
    return found or None


__all__ = ["HANDLERS", "WRITES", "Command", "command", "reads"]
