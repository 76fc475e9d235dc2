"""A shop whose erasures wait for a worker of the test's own, and what is left of whom in it."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from api_calls import view
from erasure_search import search
from gateway_thread import Api
from stalls import patient
from waiting import wait_until

from feature_repo.archive.event_archive import Archive
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.online.connection import connect
from feature_repo.online.live_row import row_key
from services.client import Client
from services.erasure import ledger
from services.erasure.worker import ErasureWorker

STAYS = "stayer"
_people = itertools.count()


class Shop:
    """A gateway whose erasures wait for a worker of the test's own."""

    def __init__(self, api: Api) -> None:
        self.home, self.url, self.api = api.settings.home, api.url, api
        self.named = Pseudonyms.load(self.home, api.settings.partitions)
        api._erasures.stop()
        self.client = api.client()
        self.store = connect(patient(api.url))
        self._come(self.client, STAYS)
        wait_until(lambda: len(self.archived()) == 3, "the archiver")

    def worker(self) -> ErasureWorker:
        return ErasureWorker(
            connect(patient(self.url)), self.home, self.api.settings.partitions, self._wait
        )

    def _wait(self, seconds: float) -> None:
        threading.Event().wait(min(seconds, 0.005))

    def pseudonyms(self, user: str) -> list[str]:
        return [self.named.of_user(user), self.named.of_anonymous(f"{user}-ghost")]

    def come(self) -> str:
        """Let somebody come who leaves something everywhere, and return their id."""
        user = f"zebra{next(_people):03d}quartz"
        self._come(self.client, user)
        self.client.audiences.put("some", {"rule": {"user_ids": [user, STAYS]}, "consent": []})
        lines = [{"type": "login", "user_id": one} for one in (user, STAYS)]
        (self.home / "rest.ndjson").write_bytes(b"".join(orjson.dumps(e) + b"\n" for e in lines))
        (self.home / "features").mkdir(exist_ok=True)
        entities = [*self.pseudonyms(user), *self.pseudonyms(STAYS)]
        pq.write_table(pa.table({"entity": entities}), self.home / "features" / "x.parquet")
        return user

    def _come(self, client: Client, user: str) -> None:
        ghost = {"anonymous_id": f"{user}-ghost"}
        client.post_event({"type": "login", "id": f"{user}:1", **ghost}, return_profile=True)
        client.post_event(view(user, id=f"{user}:2", **ghost), return_profile=True)
        client.put_consents(user, {"email": True})

    def archived(self) -> set[bytes]:
        """Return the events of the one who stays, as the archive has them."""
        archive, entities = Archive(self.home / "archive" / "events"), self.pseudonyms(STAYS)
        parts = {part for one in entities for part in archive.parts_of(partition_of(one))}
        tables = [pq.read_table(part).to_pylist() for part in parts]
        return {row["record"] for table in tables for row in table if row["user"] in entities}

    def of_stayer(self) -> set[Any]:
        """Return all that there is of the one who stays, but for what the other is in too."""
        rows = {row_key(one): self.store.hgetall(row_key(one)) for one in self.pseudonyms(STAYS)}
        assert all(rows.values())
        said = self._say([STAYS, *self.pseudonyms(STAYS)])
        kept = {(k, text) for k, text in said if b"audiences" not in k and not k.endswith(b"}log")}
        return self.archived() | kept

    def left_of(self, user: str) -> list[str]:
        """Return where somebody still is."""
        needles = [user, *self.pseudonyms(user)]
        kept = [repr(each) for each in self._say(needles) if not each[0].endswith(b"}erased")]
        found = search(self.home, needles)
        named = [line for line in found if not line.startswith("erasures/")]
        return kept + named + [line for line in found if line.endswith(f": {user}")]

    def _say(self, needles: list[str]) -> Iterator[tuple[bytes, str]]:
        read = {
            b"hash": lambda key: self.store.hgetall(key).items(), b"set": self.store.smembers,
            b"stream": self.store.xrange, b"zset": lambda key: self.store.zrange(key, 0, -1),
            b"string": lambda key: [self.store.get(key)],
        }  # fmt: skip
        for key in self.store.scan_iter():
            for entry in read[self.store.type(key)](key):
                if any(one in repr((key, entry)) for one in needles):
                    yield key, repr(entry)

    def check(self, erasure: str, user: str, before: set[Any]) -> None:
        """Hold an erasure that is done to what it owes: nothing left, nobody else's moved."""
        receipt = self.client.privacy.erasure(erasure)
        assert (receipt["status"], receipt["linked"]) == ("done", 1), receipt
        left, after = self.left_of(user), self.of_stayer()
        assert not left, left
        assert ledger.read_ids(self.home, erasure) == frozenset()
        assert after == before, after ^ before
        assert STAYS in (self.home / "rest.ndjson").read_text()
        table = pq.read_table(self.home / "features" / "x.parquet")
        assert table["entity"].to_pylist() == self.pseudonyms(STAYS)
        assert self.named.of_user(STAYS) in str(self.client.audiences.get("some")["rule"])
