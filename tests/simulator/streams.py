"""Redis streams as the simulated server keeps them."""

from bisect import bisect_left, bisect_right

StreamId = tuple[int, int]

MAX_ID: StreamId = (2**64 - 1, 2**64 - 1)


def parse_id(text: bytes, *, last: bool = False) -> StreamId:
    """Read ``ms-seq`` or ``ms``; a missing sequence is the lowest, or the highest if ``last``."""
    ms, dash, seq = text.partition(b"-")
    if not dash:
        return int(ms), MAX_ID[1] if last else 0
    return int(ms), int(seq)


def format_id(stream_id: StreamId) -> bytes:
    return b"%d-%d" % stream_id


class Stream:
    """Entries in order, and the last id ever given out."""

    def __init__(self) -> None:
        self.ids: list[StreamId] = []
        self.fields: list[list[bytes]] = []
        self.last: StreamId = (0, 0)
        self.added = 0

    def add(self, text: bytes, now_ms: int, fields: list[bytes]) -> StreamId | None:
        """Add an entry and return its id; None if ``text`` is not above the last one."""
        if text == b"*":
            ms, seq = self.last
            given = (now_ms, 0) if now_ms > ms else (ms, seq + 1)
        else:
            given = parse_id(text)
            if given <= self.last:
                return None
        self.ids.append(given)
        self.fields.append(fields)
        self.last = given
        self.added += 1
        return given

    def between(self, start: bytes, end: bytes) -> tuple[int, int]:
        """Return the slice of the entries from ``start`` to ``end`` as XRANGE reads them."""
        if start == b"-":
            low = 0
        elif start == b"+":
            low = len(self.ids)
        elif start[:1] == b"(":
            low = bisect_right(self.ids, parse_id(start[1:]))
        else:
            low = bisect_left(self.ids, parse_id(start))
        if end == b"+":
            high = len(self.ids)
        elif end == b"-":
            high = 0
        elif end[:1] == b"(":
            high = bisect_left(self.ids, parse_id(end[1:]))
        else:
            high = bisect_right(self.ids, parse_id(end, last=True))
        return low, max(low, high)

    def after(self, stream_id: StreamId) -> int:
        """Return the index of the first entry above ``stream_id``."""
        return bisect_right(self.ids, stream_id)

    def cut(self, count: int) -> int:
        """Forget the first ``count`` entries."""
        del self.ids[:count]
        del self.fields[:count]
        return count

    def remove(self, stream_id: StreamId) -> int:
        """Forget one entry; returns how many were there."""
        at = bisect_left(self.ids, stream_id)
        if at == len(self.ids) or self.ids[at] != stream_id:
            return 0
        del self.ids[at]
        del self.fields[at]
        return 1

    def reply(self, low: int, high: int) -> list[list[object]]:
        """Return entries in the shape of the server's answers."""
        return [
            [format_id(self.ids[at]), list(self.fields[at])]
            for at in range(low, min(high, len(self.ids)))
        ]
