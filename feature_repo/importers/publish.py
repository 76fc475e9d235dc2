"""Publishing: events to archive parts and rest file, all at the end or not at all.

Everything is written below a staging folder first and renamed into place by `Publisher.finish`,
so that an interrupted import changes nothing. Events already in the archive (same source and
id) are left out, so that importing again adds nothing. Not here: what an event is made of.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
from pydantic import ValidationError

from feature_repo.archive import currency
from feature_repo.archive.catalogue import Item, complete_item, load_catalogue
from feature_repo.archive.currency import Money
from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences.denials import find_allowing
from feature_repo.erasure import tombstones
from feature_repo.errors import InvalidSourceError
from feature_repo.events.minimisation import FieldPolicy, Minimiser
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import (
    MAX_EVENT_BYTES,
    MAX_FUTURE_MS,
    Event,
    EventRecord,
    iso,
    now_ms,
    pointer,
    problems,
    to_record,
)
from feature_repo.importers.assemble import MARK_LENGTH, USER_MARK, Made, bound_id
from feature_repo.importers.lines import EARLIEST_IMPORTED_MS
from feature_repo.user_profile.consent import find_misnamed, only_statements
from feature_repo.user_profile.purposes import read_defaults

PART_EVENTS: Final = 20_000
ERASED: Final = "erased"
"""Why a row of somebody who was erased is in no event."""
UNPROFILED: Final = "profiling_denied"
"""Why a row of somebody who denies profiling is in no event."""

PERSONAL: Final = "personal_data"
"""Why a row is in no event that holds what looks like somebody's data, by setting."""


@contextmanager
def import_lock(home: Path) -> Iterator[Path]:
    """Hold the right to import into ``home`` and yield an empty staging folder.

    Raises
    ------
    InvalidSourceError
        If another import into the same home is running.
    """
    staging = home / "import.staging"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidSourceError(
                f"another import into {home} is running: wait for it to end"
            ) from None
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed import
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


class Publisher:
    """Takes events, stages them, and publishes them together.

    Parameters
    ----------
    home
        State folder.
    staging
        Empty folder on the same file system as ``home``.
    source
        Value of ``source`` of the events.
    items
        Returns the source's catalogue; with the one in ``home`` it completes event items.
    until_ms
        Events at or after this time are held: written to ``rest``, not to the archive.
    rest
        NDJSON file of the events held; needed with ``until_ms``.
    money
        The shop's currency, if that is set, and what others are worth.
    policy
        What is done to which fields before they are kept.
    """

    def __init__(
        self,
        home: Path,
        staging: Path,
        source: str,
        items: Callable[[], Sequence[Item]],
        until_ms: int | None,
        rest: Path | None,
        money: Money,
        policy: FieldPolicy,
    ) -> None:
        self._source_items = items
        self._catalogue = dict[str, Item]()
        self.home = home
        self.pseudonyms = Pseudonyms.load(home)
        self._minimiser = Minimiser(policy, self.pseudonyms)
        self._latest_ms = now_ms() + MAX_FUTURE_MS
        self.archive = Archive(home / "archive" / "events")
        self.staging = Archive(staging / "events")
        self.source, self.until_ms, self.rest = source, until_ms, rest
        self.events = self.events_new = self.events_held = 0
        self.rows_held = 0
        self.users: set[str] = set()
        self.items: set[str] = set()
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._money = money
        self._named = False  # whether amounts taken make the currency the shop's for good
        self.amounts_set_aside = 0
        self.erased = tombstones.read(home)
        self._may_profile = find_allowing(home, "profiling", read_defaults(os.environ))
        self._linked = set[str]()
        self._earlier = self._ids("source = ?")
        self._now = set[tuple[str, str]]()
        self._known = dict[str, set[tuple[str, str]]]()
        self._pending = list[tuple[LogPosition, EventRecord]]()
        self._set_aside = list[tuple[int, str, bytes]]()

    def _ids(self, which: str) -> set[tuple[str, str]]:
        """Return source and id of the archive's events of some sources."""
        if self.archive.empty():
            return set()
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            found = connection.execute(
                f"SELECT source, event_id FROM read_parquet(?) WHERE {which}",  # noqa: S608
                [self.archive.glob(), self.source],
            ).fetchnumpy()
        return set(zip(found["source"].tolist(), found["event_id"].tolist(), strict=True))

    @cached_property
    def _others(self) -> set[tuple[str, str]]:
        """Events of other sources: a line in the API's form may name its own."""
        return self._ids("source <> ?")

    def add(self, made: Made) -> str | None:
        """Validate and take one event; return why not, or None.

        Parameters
        ----------
        made
            The event in the outside form, and its source rows.
        """
        body, rows = made
        try:
            event = Event.model_validate(self._whole(body))
        except ValidationError as error:
            first = problems(error)[0]
            return f"invalid_event{first['pointer'] or '/'}: {first['detail']}"
        assert event.id is not None
        if event.time is None:
            return "unreadable_time"
        if not EARLIEST_IMPORTED_MS <= event.time <= self._latest_ms:
            return "impossible_time"
        named = (event.source, event.id)
        if named in self._now:
            return "duplicate"
        misnamed = find_misnamed(event.type, event.consent, event.properties)
        if misnamed is not None:
            return f"invalid_event{pointer(misnamed[0])}: the purpose is named {misnamed[1]}"
        record = to_record(event, self.pseudonyms, received_ms=event.time)
        unwanted = self._minimiser.apply(event, record)
        if unwanted is not None:
            return f"{PERSONAL}{unwanted.pointer}: {unwanted.detail}"
        self._now.add(named)
        allowed = self._allow(record)
        if isinstance(allowed, str):
            return allowed
        record = allowed
        self._count(record)
        if self.until_ms is not None and event.time >= self.until_ms:
            self._set_aside.append(
                (event.time, event.id, _outside(event, unlinked=record.linked is None))
            )
            self.events_held += 1
            self.rows_held += len(rows)
            return None
        self.events += 1
        self.amounts_set_aside += self._convert(record)
        if named not in (self._earlier if event.source == self.source else self._others):
            self.events_new += 1
            self._stage(LogPosition.imported(event.time), record)
        return None

    def _allow(self, record: EventRecord) -> EventRecord | str:
        """Return what of a record its user lets be kept, or why nothing is."""
        if record.user in self.erased:
            return ERASED
        if record.linked in self.erased:
            record.linked = None
        if self._may_profile(record.user):
            return record
        return only_statements(record) or UNPROFILED

    def _stage(self, position: LogPosition, record: EventRecord) -> None:
        self._pending.append((position, record))
        if len(self._pending) >= PART_EVENTS:
            self._flush()

    def add_placed(self, position: LogPosition, record: EventRecord) -> str | None:
        """Take an event as it was kept, to stand at ``position``; return why not, or None.

        It is known by its user, source and id: others may have events of the same name. What the
        shop does not keep any more is not put back.
        """
        if record.user in self.erased:
            return ERASED
        if record.linked in self.erased:
            record.linked = None
        ids = Event.model_construct(
            type=record.type, id=record.id, session_id=record.session_id, order_id=record.order_id
        )
        unwanted = self._minimiser.apply(ids, record)
        if unwanted is not None:
            return f"{PERSONAL}{unwanted.pointer}: {unwanted.detail}"
        known = self._known_of(record.user)
        named = (record.source, record.id)
        new = named not in known
        known.add(named)
        if new and not self._may_keep(record.user):
            bare = only_statements(record, linking=record.linked is not None)
            if bare is None:
                return UNPROFILED
            record = bare
        self._count(record)
        self.events += 1
        if new:
            self.amounts_set_aside += self._convert(record)
            self.events_new += 1
            self._stage(position, record)
        return None

    def _known_of(self, user: str) -> set[tuple[str, str]]:
        """Return source and id of the events that the archive has of a user, or that came now."""
        if user not in self._known:
            mine = (events for _, events in self.archive.histories([user]))
            self._known[user] = {(one.source, one.id) for events in mine for one in events}
        return self._known[user]

    @cached_property
    def _may_keep(self) -> Callable[[str], bool]:
        """Whether a user did not deny profiling; what was kept once was allowed by default."""
        return find_allowing(
            self.home, "profiling", {**read_defaults(os.environ), "profiling": True}
        )

    def _convert(self, record: EventRecord) -> bool:
        """Turn amounts into the shop's currency; say whether some were set aside."""
        if self._money.currency is None:
            named = currency.first_of_amounts(record)
            if named is None:
                return currency.convert(record, self._money)
            noted = currency.known(self.home)
            code = noted if currency.is_firm(noted) else named
            self._money = Money(code, self._money.rates)
            self._named = True
        self._named = self._named or currency.has_amounts(record)
        return currency.convert(record, self._money)

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """Put the pseudonym into the ids, and the catalogue's category and brand into items."""
        named = [k for k in ("id", "order_id") if USER_MARK in str(body.get(k, ""))]
        if named:
            user, anonymous = body.get("user_id"), body.get("anonymous_id")
            pseudonym = (
                self.pseudonyms.of_anonymous(str(anonymous)) if user is None
                else self.pseudonyms.of_user(str(user))
            )  # fmt: skip
            mark = pseudonym[6 : 6 + MARK_LENGTH]
            body = {**body, **{k: bound_id(body[k].replace(USER_MARK, mark)) for k in named}}
        items = body.get("items")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict) and ("category" not in item or "brand" not in item):
                told = self._catalogue.get(str(item.get("item_id")))
                if told is not None:
                    for name in ("category", "brand"):
                        if item.get(name) is None and getattr(told, name) is not None:
                            item[name] = getattr(told, name)
        return body

    def take_catalogue(self) -> None:
        """Complete events from here on with what the source has said of its items by now."""
        told = self._source_items()
        known = self._known_items
        self._catalogue = known | {i.item_id: complete_item(i, known.get(i.item_id)) for i in told}

    @cached_property
    def _known_items(self) -> dict[str, Item]:
        return load_catalogue(self.home)

    def _count(self, record: EventRecord) -> None:
        self.users.add(record.user)
        if record.linked is not None:
            self._linked.add(record.linked)
        self.items.update(item.item_id for item in record.items)
        moment = record.time_ms
        self.first_ms = moment if self.first_ms is None else min(self.first_ms, moment)
        self.last_ms = moment if self.last_ms is None else max(self.last_ms, moment)

    def _flush(self) -> None:
        if not self._pending:
            return
        self._pending.sort(key=lambda entry: (entry[0].ms, entry[0].seq, entry[1].id))
        named = "\n".join(f"{r.source} {r.id}" for _, r in self._pending)
        digest = hashlib.sha256(named.encode()).hexdigest()
        day = iso(self._pending[0][1].time_ms)[:10]
        self.staging.append(f"import-{self.source}-{day}-{digest[:16]}", self._pending)
        self._pending.clear()

    def finish(self, files: Sequence[tuple[Path, Path]], *, keep_raw: bool = False) -> bool:
        """Publish: ``files`` (staged, final), the rest file, then the archive parts.

        Parameters
        ----------
        files
            Further staged files and where they belong.
        keep_raw
            Whether rows stand in them whole.

        Returns
        -------
        bool
            False, and nothing is published, if somebody was erased meanwhile of whom there may
            be something in it.
        """
        self._flush()
        if self._named and self._money.currency is not None:
            noted = currency.note(self.home, self._money.currency)
            if noted != self._money.currency:
                raise InvalidSourceError(
                    f"the shop's currency was noted as {noted} meanwhile: import again"
                )
        staged = list(files)
        if self.rest is not None:
            path = self.staging.root / "rest.ndjson"
            path.touch(mode=0o600)  # it holds raw user ids
            self._set_aside.sort()
            with path.open("wb") as file:
                file.writelines(line + b"\n" for _, _, line in self._set_aside)
                file.flush()
                os.fsync(file.fileno())
            staged.insert(0, (path, self.rest))  # of all places, the one that may fail
        with tombstones.publishing(self.home) as erased, self.archive.part_set.adding() as folder:
            new = erased - self.erased
            if new and (keep_raw or not new.isdisjoint(self.users | self._linked)):
                return False
            staged += [(part, folder / part.name) for part in self.staging.parts()]
            for source, target in staged:
                target.parent.mkdir(parents=True, exist_ok=True)
                _move(source, target)
        return True


def check_rest(rest: Path) -> None:
    """Refuse a rest file that cannot be written, before anything is read.

    Raises
    ------
    InvalidSourceError
        With the path and why.
    """
    if rest.is_dir():
        raise InvalidSourceError(f"--rest {rest} is a folder: name a file to write")
    above = next(folder for folder in rest.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InvalidSourceError(
            f"--rest {rest} cannot be written: {above} is no folder that you may write to"
        )


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # another file system: copy beside the target, then rename
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            beside.touch(mode=source.stat().st_mode & 0o777)
            shutil.copyfile(source, beside)
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)  # it may hold raw user ids
            raise


def _outside(event: Event, *, unlinked: bool) -> bytes:
    """Return an event as a line that the HTTP API takes, within its size limit.

    Parameters
    ----------
    unlinked
        Whether an anonymous id beside a user id is left out.
    """
    body: dict[str, Any] = event.model_dump(exclude_none=True, exclude_defaults=True)
    if unlinked and "user_id" in body:
        body.pop("anonymous_id", None)
    body["time"] = iso(body["time"])
    line = orjson.dumps(body)
    if len(line) > MAX_EVENT_BYTES:  # the service fills these in again from the catalogue
        for item in body["items"]:
            item.pop("category", None)
            item.pop("brand", None)
        line = orjson.dumps(body)
    return line
