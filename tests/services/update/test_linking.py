"""An anonymous id becomes a known user's: the profile is that of one log holding both in order."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import redis
from event_log import PSEUDONYMS, Sum, append, drain, event
from hypothesis import Phase, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition, write_part
from feature_repo.errors import PortraitError, StoreUnavailableError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.online.live_row import LiveState
from feature_repo.online.live_rows import load_live, read_live
from feature_repo.user_profile import consent, explicit, purposes
from services.event_log.archiver import Archiver
from services.event_log.dead_letters import letters, retry
from services.event_log.keys import cursor_key, log_key, owners_key
from services.event_log.links import merge_histories
from services.event_log.receipt import Appended
from services.history.merged_history import restore_owners
from services.history.unjoined import add_unjoined, read_unjoined
from services.models import loaded
from services.models.transition import Transition
from services.rebuild import jobs as rebuild_jobs
from services.rebuild.run import rebuild
from services.settings import Settings
from services.update import linking, updater
from services.update.updater import UpdaterLoop

KNOWN, OTHER = PSEUDONYMS.of_user("known"), PSEUDONYMS.of_user("other")
PHONE, LAPTOP = PSEUDONYMS.of_anonymous("phone"), PSEUDONYMS.of_anonymous("laptop")


@pytest.fixture
def settings(
    redis_url: str, store_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    (tmp_path / "tenant.json").write_text(
        json.dumps({"key": PSEUDONYMS.key.hex(), "partitions": PSEUDONYMS.partitions})
    )
    rebuild_jobs._transition.cache_clear()
    monkeypatch.setattr(loaded, "transition", lambda settings: Transition(Sum()))
    yield Settings(home=tmp_path, redis_url=redis_url, partitions=PSEUDONYMS.partitions)
    rebuild_jobs._transition.cache_clear()


class Shop:
    """A service in small: what is appended, what an updater applies, and what must come of it."""

    def __init__(self, settings: Settings, client: redis.Redis, taken: int = 500) -> None:
        self.settings, self.client, self.taken = settings, client, taken
        self.archive = Archive(settings.home / "archive" / "events")
        self.placed = dict[str, tuple[tuple[LogPosition, int], EventRecord]]()
        self.owner = dict[str, str]()
        self.number = 0
        self._begin()

    def _begin(self) -> None:
        assert self.settings.redis_url
        self.updater = UpdaterLoop(self.settings, self.settings.redis_url, Transition(Sum()))
        self.updater._batch_sizing.counts = lambda cursors: dict.fromkeys(cursors, self.taken)

    def event(self, user: str, linked: str | None = None) -> EventRecord:
        self.number += 1
        made = event("", f"e{self.number}", 1_700_000_000_000 + 60_000 * self.number)
        made.user, made.linked, made.anonymous = user, linked, user in GUESTS
        made.items = [ItemRecord(f"item-{self.number % 7}")]
        return made

    def send(self, *records: EventRecord) -> list[Appended]:
        assert self.settings.redis_url
        for record in records:
            if record.linked is not None:
                self.owner.setdefault(record.linked, record.user)
        done = append(self.settings.redis_url, records)
        for record, one in zip(records, done, strict=True):
            own = record.user not in GUESTS or record.user in self.owner
            self.placed.setdefault(record.id, ((LogPosition(*one.position), int(own)), record))
        return done

    def lags(self) -> bool:
        for partition in range(PSEUDONYMS.partitions):
            newest = self.client.xrevrange(log_key(partition), count=1)
            cursor = self.client.hget(cursor_key(partition), "cursor") or b"0-0"
            if newest and LogPosition.parse(newest[0][0]) > LogPosition.parse(cursor):
                return True
        return False

    def round(self) -> None:
        if self.lags():
            drain(self.updater)

    def drain(self) -> None:
        while self.lags():
            drain(self.updater)

    def apply(self) -> None:
        self.drain()
        self.late()

    def late(self) -> None:
        self.updater._late_links._next_s.clear()
        self.updater._join_late()

    def dies(self) -> None:
        """An updater dies before its commit; another goes on."""
        commit, self.died = updater.commit, False

        def die(*_: Any, **__: Any) -> None:
            raise StoreUnavailableError("killed")

        updater.commit = die
        try:
            drain(self.updater)
        except StoreUnavailableError:
            pass
        finally:
            updater.commit = commit
        self.updater._leases.leave()
        self._begin()

    def file(self) -> None:
        Archiver(self.client, self.archive).run(range(PSEUDONYMS.partitions))

    def of(self, user: str) -> list[EventRecord]:
        """Return what one log of the user, with the anonymous ids' events in order, would hold."""
        mine = [
            each for each in self.placed.values()
            if (each[1].user == user) or self.owner.get(each[1].user) == user
        ]  # fmt: skip
        links = dict[str, tuple[LogPosition, int]]()
        for place, record in sorted(mine, key=lambda each: each[0]):
            if record.linked is not None:
                links.setdefault(record.linked, place)

        def key(each: tuple[tuple[LogPosition, int], EventRecord]) -> Any:
            (position, own), record = each
            at = (position, own)
            if not own and record.user in links:  # within one millisecond it may look later
                at = (min(position, links[record.user][0]), own)
            return *at, position, record.id

        return [record for _, record in sorted(mine, key=key)]

    def row(self, user: str) -> LiveState:
        found = read_live(self.client, [user])[0]
        assert found is not None
        return found


@pytest.fixture
def shop(settings: Settings, store_client: redis.Redis) -> Shop:
    return Shop(settings, store_client)


def of_one_log(events: list[EventRecord]) -> LiveState:
    one = [msgspec.structs.replace(each, user=KNOWN, linked=None) for each in events]
    return Transition(Sum()).fold({KNOWN: one})[KNOWN]


def parts(row: LiveState | None) -> Any:
    """Return a row without the pseudonyms linked, which one log of one user does not name."""
    assert row is not None
    state = explicit.decode(row.profile)
    state.linked.clear()
    return explicit.encode(state), row.learned, row.version, row.time_ms


def unwanted(*_: Any) -> None:
    raise AssertionError("a link was left for later")


GUESTS = [PHONE, LAPTOP, *(PSEUDONYMS.of_anonymous(f"guest{n}") for n in range(4))]
STEPS = st.one_of(
    st.tuples(st.sampled_from(["guest", "link", "visit"]), st.integers(0, len(GUESTS) - 1)),
    st.tuples(st.just("other link"), st.integers(0, 2)),
    st.tuples(
        st.sampled_from(["known", "other", "apply", "apply", "round", "file", "dies"]), st.just(0)
    ),
)


@given(
    groups=st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=1, max_size=12),
    taken=st.sampled_from([1, 2, 500]),
    merged=st.sampled_from([3, 8, None]),
    rebuilt=st.sets(st.integers(0, 11), max_size=2),
)
@profile(
    profile.get_profile("one fixture for all"), max_examples=25, derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a shrink would take minutes
)  # fmt: skip
def test_a_linked_profile_is_that_of_one_log(
    settings: Settings,
    store_client: redis.Redis,
    tmp_path_factory: Any,
    groups: list[list[tuple[str, int]]],
    taken: int,
    merged: int | None,
    rebuilt: set[int],
) -> None:
    store_client.flushall()
    home = tmp_path_factory.mktemp("home")
    (home / "tenant.json").write_bytes((settings.home / "tenant.json").read_bytes())
    shop = Shop(settings.model_copy(update={"home": home}), store_client, taken)
    make: dict[str, Callable[[int], EventRecord]] = {
        "known": lambda _: shop.event(KNOWN), "other": lambda _: shop.event(OTHER),
        "guest": lambda n: shop.event(GUESTS[n]), "link": lambda n: shop.event(KNOWN, GUESTS[n]),
        "other link": lambda n: shop.event(OTHER, GUESTS[n]),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        if merged is None:
            patch.setattr(linking, "add_unjoined", unwanted)
        else:
            patch.setattr(linking, "MERGED_EVENTS", merged)
        for number, group in enumerate(groups):
            if sent := [make[step](n) for step, n in group if step in make]:
                shop.send(*sent)
            for step, n in group:
                if step == "visit":  # the guest's event is applied before its link is sent
                    shop.send(shop.event(GUESTS[n]))
                    shop.drain()
                    shop.send(shop.event(KNOWN, GUESTS[n]))
                elif step not in make:
                    getattr(shop, step)()
            if number in rebuilt and not shop.archive.empty():
                rebuild(shop.settings)
        shop.apply()
    users = [
        user for user in (KNOWN, OTHER) if any(r.user == user for _, r in shop.placed.values())
    ]
    live = {user: shop.row(user) for user in users}
    for user in users:
        assert parts(live[user]) == parts(of_one_log(shop.of(user)))

    shop.file()
    store_client.flushall()
    if not shop.archive.empty():
        rebuild(shop.settings)
        assert {user: shop.row(user) for user in users} == live


def test_each_further_id_brings_what_it_did(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """History, link, applied; and again: the row then counts events that are not of its own log."""
    monkeypatch.setattr(linking, "add_unjoined", unwanted)
    for anonymous in GUESTS:
        shop.send(shop.event(anonymous))
        shop.apply()
        shop.send(shop.event(KNOWN, anonymous))
        shop.apply()
    assert shop.row(KNOWN).version == 2 * len(GUESTS)
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_an_id_that_the_row_names_no_more_is_not_folded_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "MAX_LINKED", 1)
    for user, linked in ((PHONE, None), (LAPTOP, None), (KNOWN, PHONE), (KNOWN, LAPTOP)):
        shop.send(shop.event(user, linked))
        shop.apply()
    folded = linking.merge_histories
    monkeypatch.setattr(linking, "merge_histories", unwanted)
    for _ in range(2):
        shop.send(shop.event(KNOWN, PHONE))
        shop.apply()
    monkeypatch.setattr(linking, "merge_histories", folded)
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_what_stands_between_is_folded_between(shop: Shop) -> None:
    for step in (KNOWN, PHONE, KNOWN, PHONE):
        shop.send(shop.event(step))
        shop.apply()
    assert shop.row(KNOWN).learned == b"e1;e3;"
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    assert shop.row(KNOWN).learned == b"e1;e2;e3;e4;e5;"


def test_a_link_said_again_changes_nothing_else(shop: Shop) -> None:
    shop.send(shop.event(PHONE), shop.event(KNOWN))
    shop.apply()
    link = shop.event(KNOWN, PHONE)
    first = shop.send(link)
    shop.apply()
    before = shop.row(KNOWN)
    assert [one.status for one in shop.send(link)] == ["duplicate"]
    assert shop.send(link)[0].position == first[0].position
    shop.apply()
    assert shop.row(KNOWN) == before
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_the_anonymous_log_is_closed_and_old_ids_keep_their_receipts(shop: Shop) -> None:
    early = shop.event(PHONE)
    first = shop.send(early)[0]
    shop.send(shop.event(KNOWN, PHONE))
    late = shop.send(shop.event(PHONE))[0]
    assert late.partition == partition_of(KNOWN)
    again = shop.send(early)[0]
    assert (again.status, again.position) == ("duplicate", first.position)
    length = shop.client.xlen(log_key(partition_of(PHONE)))
    assert length == (2 if partition_of(PHONE) == partition_of(KNOWN) else 0) + 1


def test_the_first_user_keeps_the_anonymous_id(shop: Shop) -> None:
    shop.send(shop.event(PHONE))
    shop.send(shop.event(KNOWN, PHONE), shop.event(OTHER, PHONE))
    shop.send(shop.event(PHONE))
    shop.apply()
    assert shop.client.hget(owners_key(partition_of(PHONE)), PHONE) == KNOWN.encode() + b"+"
    assert shop.row(KNOWN).version == 3
    other = shop.row(OTHER)
    assert other is not None
    assert other.version == 1
    assert explicit.decode(other.profile).linked == []


def test_a_new_user_goes_on_from_the_anonymous_row_without_a_history(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.send(shop.event(PHONE), shop.event(PHONE))
    shop.apply()

    def unread(*_: Any) -> Any:
        raise AssertionError("the history was read")

    monkeypatch.setattr(linking.PartitionHistory, "whole", unread)
    shop.send(shop.event(KNOWN, PHONE), shop.event(KNOWN))
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_many_links_take_several_rounds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "MERGED_EVENTS", 8)
    pairs = [(PSEUDONYMS.of_user(f"u{n}"), PSEUDONYMS.of_anonymous(f"a{n}")) for n in range(12)]
    for _ in range(3):
        made = [shop.event(who) for pair in pairs for who in pair]
        for each in made:
            each.anonymous = any(each.user == a for _, a in pairs)
        shop.send(*made)
    shop.apply()
    shop.send(*[shop.event(user, anonymous) for user, anonymous in pairs])
    sent = [shop.event(user) for user, _ in pairs]
    shop.send(*sent)
    shop.apply()
    assert {shop.row(user).version for user, _ in pairs} == {8}


@pytest.mark.parametrize("mended_by", ["itself", "rebuild"])
def test_a_history_that_is_not_all_there_is_folded_when_it_is(shop: Shop, mended_by: str) -> None:
    for user in (KNOWN, PHONE, KNOWN, LAPTOP):
        shop.send(shop.event(user))
    shop.apply()
    shop.file()
    hidden = [(part, part.with_suffix(".gone")) for part in shop.archive.parts()]
    for part, elsewhere in hidden:
        part.rename(elsewhere)
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    assert shop.row(KNOWN).learned == b"e1;e3;e5;"
    shop.send(shop.event(KNOWN, LAPTOP))  # as many events come in as are lost
    shop.apply()
    with pytest.raises(PortraitError, match="1 of 3 profiles were left"):
        rebuild(shop.settings)
    assert shop.row(KNOWN).learned == b"e1;e3;e5;e6;"
    for part, elsewhere in hidden:
        elsewhere.rename(part)
    if mended_by == "rebuild":
        rebuild(shop.settings)
    else:
        shop.late()
    assert shop.row(KNOWN).learned == b"e1;e2;e3;e4;e5;e6;"
    assert read_unjoined(shop.client, partition_of(KNOWN)) == {}


@pytest.mark.parametrize("killed", [False, True])
def test_a_history_too_long_for_a_round_is_folded_beside_the_updates(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    monkeypatch.setattr(linking, "MERGED_EVENTS", 3)
    shop.send(*(shop.event(PHONE) for _ in range(3)), shop.event(KNOWN))
    shop.apply()
    shop.send(shop.event(KNOWN, PHONE))
    shop.drain()
    assert shop.row(KNOWN).learned == b"e4;e5;"
    if killed:  # the row is in place, its note is still there
        noted = read_unjoined(shop.client, partition_of(KNOWN))
        shop.late()
        add_unjoined(shop.client, noted)
    shop.send(shop.event(KNOWN, LAPTOP), shop.event(KNOWN))
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))
    assert read_unjoined(shop.client, partition_of(KNOWN)) == {}


def test_notes_that_say_too_much_keep_no_history_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the row and its note; a link that is to be made good comes in between."""
    monkeypatch.setattr(linking, "MERGED_EVENTS", 3)
    shop.send(*(shop.event(user) for user in (PHONE, PHONE, PHONE, LAPTOP, LAPTOP, KNOWN)))
    shop.apply()
    shop.send(shop.event(KNOWN, PHONE))
    shop.drain()
    noted = read_unjoined(shop.client, partition_of(KNOWN))
    shop.late()
    add_unjoined(shop.client, noted)
    shop.send(shop.event(KNOWN, LAPTOP))
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))
    assert read_unjoined(shop.client, partition_of(KNOWN)) == {}


@pytest.mark.parametrize("claim", [False, True])
def test_an_owner_whom_the_store_forgot_before_it_took_the_event_is_noted_again(
    shop: Shop, claim: bool
) -> None:
    shop.send(shop.event(KNOWN), shop.event(PHONE))
    shop.apply()
    link = shop.event(KNOWN, PHONE)
    link.key = "write:0123456789ab" if claim else None
    shop.send(link)
    shop.client.hset(owners_key(partition_of(PHONE)), PHONE, "")
    shop.apply()
    noted = shop.client.hget(owners_key(partition_of(PHONE)), PHONE)
    assert noted == f"{KNOWN}+{'~' if claim else ''}".encode()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_an_archive_that_cannot_be_read_loses_no_history(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.send(shop.event(KNOWN), shop.event(PHONE))
    shop.apply()
    whole = linking.PartitionHistory.whole

    def unread(*_: Any) -> Any:
        raise OSError("stale file handle")

    monkeypatch.setattr(linking.PartitionHistory, "whole", unread)
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    assert shop.row(KNOWN).version == 2
    monkeypatch.setattr(linking.PartitionHistory, "whole", whole)
    shop.late()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_a_row_that_cannot_be_read_is_folded_from_its_history(shop: Shop) -> None:
    shop.send(shop.event(KNOWN), shop.event(PHONE))
    shop.apply()
    row = shop.row(KNOWN)
    load_live(shop.client, {KNOWN: dataclasses.replace(row, profile=b"of another time")})
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_what_was_known_of_a_row_is_not_believed_after_the_store_lost_it(shop: Shop) -> None:
    shop.send(shop.event(KNOWN), shop.event(PHONE))
    shop.apply()
    before = shop.row(KNOWN), shop.client.hget(cursor_key(partition_of(KNOWN)), "cursor")
    for _ in range(2):  # the second time the link is known
        shop.send(shop.event(KNOWN, PHONE))
        shop.apply()
    load_live(shop.client, {KNOWN: before[0]})
    shop.client.hset(cursor_key(partition_of(KNOWN)), "cursor", before[1])
    shop.apply()
    assert parts(shop.row(KNOWN)) == parts(of_one_log(shop.of(KNOWN)))


def test_a_dead_letter_of_the_anonymous_id_is_retried_for_its_owner(shop: Shop) -> None:
    poison = shop.event(PHONE)
    poison.id = "poison-1"
    shop.send(shop.event(PHONE), poison)
    shop.apply()
    shop.send(shop.event(KNOWN, PHONE))
    shop.apply()
    (letter,) = letters(shop.client, range(PSEUDONYMS.partitions))
    assert list(retry(shop.client, range(PSEUDONYMS.partitions), [letter.id]).values()) == [
        "retried"
    ]
    shop.apply()
    (again,) = letters(shop.client, range(PSEUDONYMS.partitions))
    assert again.event is not None
    assert (again.event.user, again.event.linked) == (KNOWN, PHONE)
    assert shop.row(KNOWN).learned == b"e2;e3;"


def test_a_link_that_cannot_be_applied_joins_nothing(shop: Shop) -> None:
    shop.send(shop.event(PHONE), shop.event(KNOWN))
    shop.apply()
    poison = shop.event(KNOWN, PHONE)
    poison.id = "poison-1"
    shop.send(poison, shop.event(KNOWN))
    shop.apply()
    assert len(letters(shop.client, range(PSEUDONYMS.partitions))) == 1
    assert shop.row(KNOWN).learned == b"e2;e4;"
    assert explicit.decode(shop.row(KNOWN).profile).linked == []
    assert shop.updater.applied == 3


@pytest.mark.parametrize("first", [True, False])
def test_consent_of_what_cannot_be_applied_says_nothing_when_histories_are_joined(
    shop: Shop, first: bool
) -> None:
    granting = shop.event(PHONE)
    granting.consent = {"email": True}
    shop.send(granting)
    shop.apply()
    poison, link = shop.event(KNOWN), shop.event(KNOWN, PHONE)
    poison.id, poison.consent = "poison-1", {"email": False}
    shop.send(*((poison, link) if first else (link, poison)), shop.event(KNOWN))
    shop.apply()
    assert len(letters(shop.client, range(PSEUDONYMS.partitions))) == 1
    assert shop.row(KNOWN).learned == b"e1;e3;e4;"
    assert purposes.allowed(explicit.decode(shop.row(KNOWN).profile).consent, "email", 0)


def test_a_link_stands_behind_what_it_links_whatever_the_clocks_say() -> None:
    def at(ms: int, name: str, linked: str | None = None) -> tuple[LogPosition, EventRecord]:
        return LogPosition(ms, 0), event("u", name, linked=linked)

    own = [at(10, "u1"), at(20, "link", "a"), at(30, "u2")]
    theirs = {"a": [at(5, "a1"), at(15, "a2"), at(25, "a3"), at(40, "a4")]}
    assert [e.id for e in merge_histories(own, theirs)] == [
        "a1",
        "u1",
        "a2",
        "a3",
        "a4",
        "link",
        "u2",
    ]


CLAIMED, VOUCHED, MOVED = "write:0123456789ab", "server:0123456789ab", "admin:0123456789ab"


@pytest.mark.parametrize(
    ("links", "note"),
    [
        ([(KNOWN, None)], KNOWN),  # as imported history says it, and as it was kept before
        ([(KNOWN, CLAIMED)], KNOWN + "~"),
        ([(KNOWN, CLAIMED), (OTHER, CLAIMED)], KNOWN + "~"),
        ([(KNOWN, CLAIMED), (OTHER, VOUCHED)], f"{KNOWN}>{OTHER}"),
        ([(KNOWN, CLAIMED), (KNOWN, VOUCHED), (OTHER, VOUCHED)], KNOWN),
        ([(KNOWN, VOUCHED), (OTHER, VOUCHED)], KNOWN),
        ([(KNOWN, CLAIMED), (KNOWN, MOVED), (OTHER, VOUCHED)], f"{KNOWN}>{OTHER}"),
        ([(KNOWN, None), (OTHER, VOUCHED), (OTHER, CLAIMED)], KNOWN),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_the_archive_tells_whose_an_anonymous_id_is(
    shop: Shop, links: list[tuple[str, str | None]], note: str, *, older: bool
) -> None:
    for n, (user, key) in enumerate(links):
        record = shop.event(user, linked=PHONE)
        record.key, record.anonymous = key, key == MOVED  # the anonymous id's own, its user's since
        path = shop.archive.append(f"import-{n}", [(LogPosition(1, n), record)])
        if older and key is None:
            write_part(path, pq.read_table(path).drop_columns(["key"]))
    restore_owners(shop.client, shop.archive, PSEUDONYMS.partitions)
    assert shop.client.hget(owners_key(partition_of(PHONE)), PHONE) == note.encode()
