"""A wrong link undone: both profiles are those of two people who were never named together.

Controls did the same, but for the login that named both ids. Equal is all of a profile but the ids
of users and the pseudonyms.
"""

import getpass
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from api_calls import purchase, view
from event_log import Sum
from gateway_thread import Api
from typer.testing import CliRunner
from waiting import wait_until

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure.archive_parts import rewrite_archive
from feature_repo.erasure.retention import sweep_old
from feature_repo.erasure.running_work import hold_folder
from feature_repo.errors import ConflictError, PortraitError
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.events.schema import iso, now_ms
from feature_repo.online.live_row import row_key
from feature_repo.online.live_rows import read_live
from feature_repo.online.previous_states import previous_key
from services.audit.recorder import name_user
from services.client import Client
from services.commands.cli import app
from services.event_log.keys import owners_key, profiling_key
from services.history.refolding import Refolding
from services.history.unlinking import add_unlinking, read_unlinking
from services.history.users import PartitionHistory
from services.models import loaded
from services.models.transition import Transition
from services.rebuild import jobs
from services.rebuild import unlink as undoing
from services.rebuild.history_lock import lock_history
from services.rebuild.run import rebuild
from services.rebuild.wrong_link import find_link
from services.update import updater

BEGIN_MS = now_ms() - 3_600_000
STEPS = ["owner", "giving events back", "waiting until both logs are in the archive", "archive",
         "profiles", "check"]  # fmt: skip


class KilledError(Exception):
    """The command is ended here."""


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        patch.setattr(loaded, "transition", lambda settings: Transition(Sum()))
        jobs._transition.cache_clear()
        yield make_api(archive_every_s=0.1, replay_clock=True)
        jobs._transition.cache_clear()


@pytest.fixture(autouse=True)
def folder(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_HOME", str(api.settings.home))
    monkeypatch.setenv("PORTRAIT_REDIS_URL", api.url)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def named(api: Api) -> Pseudonyms:
    return Pseudonyms.load(api.settings.home)


@pytest.fixture
def store(api: Api) -> Iterator[Any]:
    with redis.Redis.from_url(api.url) as client:
        yield client


def portrait(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["privacy", "unlink", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return orjson.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else done.stderr


def visit(anonymous: str, item: str, **more: Any) -> dict[str, Any]:
    return {**view("", item, **more), "user_id": None, "anonymous_id": anonymous}


def send(client: Client, number: int, event: dict[str, Any]) -> None:
    """Send an event of a fixed minute and wait until it is applied."""
    at = iso(BEGIN_MS + 60_000 * number)
    who = event.get("user_id") or event["anonymous_id"]
    client.post_event({"id": f"{who}-{number}", "time": at, **event}, return_profile=True)


def live(client: Client, user: str, anonymous: str, *, wrong: bool) -> None:
    """Let two people live, of whom one logs in with the other's browser, if ``wrong``."""
    both = {"anonymous_id": anonymous} if wrong else {}
    events = [
        view(user, "U1", consent={"email": True}),
        visit(anonymous, "A1", consent={"ads": True, "email": False}),
        visit(anonymous, "A2", session_id="one"),
        view(user, "U2"),
        {"type": "login", "user_id": user, **both},
        visit(anonymous, "A3", session_id="two", query="tea"),
        visit(anonymous, "A1", consent={"personalization": False}),
        purchase(user, "U3", value=12.5, channel="web"),
        visit(anonymous, "A4") | {"type": "add_to_cart", "consent": {"sms": True}},
        view(user, "U2", consent={"analytics": False}),
        purchase("", "A4", value=3.0) | {"user_id": None, "anonymous_id": anonymous},
    ]  # fmt: skip
    for number, event in enumerate(events):
        send(client, number, event)


def told(client: Client, store: Any, pseudonym: str, who: str) -> list[Any]:
    """Return profile, consents and learned state without what names somebody."""
    row = read_live(store, [pseudonym])[0]
    assert row is not None
    profile, consents = orjson.dumps(client.profile(who)), orjson.dumps(client.consents(who))
    learned = (row.learned, str(row.version).encode(), str(row.time_ms).encode())
    parts = [one.replace(who.encode(), b"*") for one in (profile, consents, *learned)]
    return [re.sub(rb'"as_of":"[^"]*"', b"", one) for one in parts]


def raw(store: Any, named: Pseudonyms, user: str, anonymous: str) -> list[dict[bytes, bytes]]:
    return [
        store.hgetall(row_key(one)) for one in (named.of_user(user), named.of_anonymous(anonymous))
    ]


def pair(named: Pseudonyms, user: str, *, same: bool) -> tuple[str, str]:
    """Return a user id and an anonymous id of one partition, or of two."""
    home = partition_of(named.of_user(user))
    found = (f"{user}-a{n}" for n in range(1000))
    return user, next(a for a in found if (partition_of(named.of_anonymous(a)) == home) == same)


def naming(api: Api, store: Any, named: Pseudonyms, user: str, anonymous: str) -> int:
    one, archive = named.of_user(user), Archive(api.settings.home / "archive" / "events")
    history = PartitionHistory(store, archive, partition_of(one)).all([one])[one]
    return sum(event.linked == named.of_anonymous(anonymous) for _, event in history)


def audited(client: Client) -> set[str | None]:
    """Return whom the audit names beside the command."""
    page = client.audit(key=f"cli:{getpass.getuser()}", limit=1000)["entries"]
    return {one["user"] for one in page if one["operation"] == "portrait privacy unlink"}


@pytest.mark.parametrize("same", [False, True])
def test_both_are_who_they_would_have_been(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str, same: bool
) -> None:
    user, anonymous = pair(named, user, same=same)
    live(client, user, anonymous, wrong=True)
    live(client, f"c-{user}", f"c-{anonymous}", wrong=False)
    assert client.profile(anonymous)["event_count"] == 11
    with pytest.raises(AssertionError):
        assert_apart(client, store, named, user, anonymous)

    store.hset(previous_key(named.of_user(user)), "of", "another model's")
    assert portrait(user, anonymous, "--json") == {"moved": 4, "named": 1, "linked_again": False}
    assert_apart(client, store, named, user, anonymous)
    assert client.profile(user)["event_count"] == 5
    assert naming(api, store, named, user, anonymous) == 0
    assert not store.exists(previous_key(named.of_user(user)))
    wait_until(lambda: name_user(named, user) in audited(client), "the audit")
    assert not read_unlinking(store, api.settings.partitions)
    assert "belongs to nobody" in portrait(user, anonymous, code=2)

    before = raw(store, named, user, anonymous)
    rebuild(api.settings)
    assert raw(store, named, user, anonymous) == before
    # What is sent again is known, what is new is the anonymous id's.
    repeated = visit(anonymous, "A3", session_id="two", query="tea", id=f"{anonymous}-5")
    assert client.post_event(repeated)["status"] == "duplicate"
    send(client, 20, visit(anonymous, "A9"))
    assert client.profile(anonymous)["event_count"] == 7
    assert client.profile(user)["event_count"] == 5
    # And a right login links anew, with all that was done before.
    send(client, 21, view(user, "U9", anonymous_id=anonymous))
    assert client.profile(user)["event_count"] == client.profile(anonymous)["event_count"] == 13
    assert portrait(user, anonymous, "--json") == {"moved": 0, "named": 1, "linked_again": False}
    assert [client.profile(one)["event_count"] for one in (user, anonymous)] == [6, 7]


def assert_apart(client: Client, store: Any, named: Pseudonyms, user: str, anonymous: str) -> None:
    """Hold two people to those who did the same and were never named together."""
    for make, one in ((named.of_user, user), (named.of_anonymous, anonymous)):
        control = told(client, store, make(f"c-{one}"), f"c-{one}")
        assert told(client, store, make(one), one) == control


def undo(api: Api, user: str, anonymous: str, tell: Any = None) -> undoing.UndoneLink:
    return undoing.unlink(api.settings, find_link(api.settings, user, anonymous), tell)


@pytest.mark.parametrize("same", [False, True])
def test_killed_at_each_step_and_run_again_it_is_the_same(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str, same: bool
) -> None:
    user, anonymous = pair(named, user, same=same)
    live(client, user, anonymous, wrong=True)
    live(client, f"c-{user}", f"c-{anonymous}", wrong=False)
    for last in STEPS:

        def tell(done: int, total: int, what: str, last: str = last) -> None:
            if what == last:
                raise KilledError

        with pytest.raises(KilledError):
            undo(api, user, anonymous, tell)
        assert read_unlinking(store, api.settings.partitions)
        with suppress(PortraitError):  # the user's history is short just then
            rebuild(api.settings)
        assert client.profile(user)["event_count"] in {11, 5}  # it makes no link again
    undo(api, user, anonymous)
    assert_apart(client, store, named, user, anonymous)
    before = raw(store, named, user, anonymous)
    rebuild(api.settings)
    assert raw(store, named, user, anonymous) == before
    assert not read_unlinking(store, api.settings.partitions)


def test_what_comes_meanwhile_is_counted_once_and_where_it_belongs(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    user, anonymous = pair(named, user, same=False)
    live(client, user, anonymous, wrong=True)
    numbers, seen = itertools.count(30), list[str]()

    def tell(done: int, total: int, what: str) -> None:
        seen.append(what)
        send(client, next(numbers), visit(anonymous, "A7"))
        send(client, next(numbers), view(user, "U7"))

    assert not undo(api, user, anonymous, tell).again
    assert set(seen) >= set(STEPS)
    assert client.profile(user)["event_count"] == 5 + len(seen)
    assert client.profile(anonymous)["event_count"] == 6 + len(seen)
    before = raw(store, named, user, anonymous)
    rebuild(api.settings)
    assert raw(store, named, user, anonymous) == before


@pytest.mark.parametrize("step", STEPS)
def test_who_names_both_again_meanwhile_links_anew(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str, step: str
) -> None:
    user, anonymous = pair(named, user, same=False)
    live(client, user, anonymous, wrong=True)
    come = iter([view(user, "U8", anonymous_id=anonymous)])

    def tell(done: int, total: int, what: str) -> None:
        if what == step and (event := next(come, None)):
            send(client, 40, event)

    done = undo(api, user, anonymous, tell)
    assert done.again == (step not in STEPS[:2])  # then it is one of those that are undone
    if done.again:
        assert client.profile(user)["event_count"] == client.profile(anonymous)["event_count"] == 12
    else:
        assert client.profile(user)["event_count"] == 6
        assert client.profile(anonymous)["event_count"] == 6
    before = raw(store, named, user, anonymous)
    rebuild(api.settings)
    assert raw(store, named, user, anonymous) == before


def test_who_folded_before_it_does_not_bring_the_link_back(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous, one = f"{user}-a", named.of_user(user)
    live(client, user, anonymous, wrong=True)
    archive = Archive(api.settings.home / "archive" / "events")
    late = Refolding(store, archive, Transition(Sum()), partition_of(one))
    late.begin([one])
    late._entry = ""  # as where the log did not hold the cursor's entry any more
    undo(api, user, anonymous)
    before = raw(store, named, user, anonymous)
    assert late.settle(3)
    assert raw(store, named, user, anonymous) == before


def test_a_denial_of_profiling_goes_with_the_one_who_said_it(
    client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous = f"{user}-a"
    send(client, 0, view(user, "U1"))
    send(client, 1, visit(anonymous, "A1"))
    send(client, 2, {"type": "login", "user_id": user, "anonymous_id": anonymous})
    send(client, 3, visit(anonymous, "A2", consent={"profiling": False}))
    send(client, 4, view(user, "U2", consent={"profiling": True}))
    send(client, 5, visit(anonymous, "A3"))
    send(client, 6, visit(anonymous, "A4", consent={"profiling": False}))
    key = profiling_key(partition_of(named.of_user(user)))
    assert store.hget(key, named.of_user(user)) == b"0"
    portrait(user, anonymous)
    assert store.hget(key, named.of_user(user)) == b"-1"
    theirs = profiling_key(partition_of(named.of_anonymous(anonymous)))
    assert store.hget(theirs, named.of_anonymous(anonymous)) == b"0"
    assert client.profile(user)["event_count"] == 3
    send(client, 7, view(user, "U3"))
    send(client, 8, visit(anonymous, "A5"))
    assert client.profile(user)["event_count"] == 4
    assert client.profile(anonymous)["event_count"] == 3  # its first view, both statements


def test_a_grant_of_profiling_is_applied_before_what_follows_it(client: Client, user: str) -> None:
    anonymous = f"{user}-a"
    send(client, 0, visit(anonymous, "A1", consent={"profiling": False}))
    send(client, 1, {"type": "login", "user_id": user, "anonymous_id": anonymous})
    send(client, 2, visit(anonymous, "A2", consent={"profiling": True}))
    send(client, 3, visit(anonymous, "A3"))
    before = client.profile(user)["event_count"]
    portrait(user, anonymous)
    assert client.profile(user)["event_count"] == 1
    assert client.profile(anonymous)["event_count"] == before - 1


def test_the_browsers_signal_is_written_again_for_the_user(client: Client, user: str) -> None:
    anonymous, signal = f"{user}-a", {"headers": {"Sec-GPC": "1"}}
    send(client, 0, {"type": "login", "user_id": user, "anonymous_id": anonymous})

    def post(event: dict[str, Any]) -> None:
        done = client.http.post("/v1/events", json=event, params={"return": "profile"}, **signal)
        assert done.status_code == 200, done.text

    post(visit(anonymous, "A1"))
    assert client.consents(user)["consents"]["ads"]["source"] == "gpc"
    portrait(user, anonymous)
    assert client.consents(user)["consents"]["ads"]["source"] == "default"
    assert client.consents(anonymous)["consents"]["ads"]["source"] == "gpc"
    post(view(user, "U1"))
    assert client.consents(user)["consents"]["ads"]["source"] == "gpc"


def test_a_claim_that_was_corrected_leaves_all_to_the_other(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    """A browser's key claims the link, the server's corrects it: each of the two is undone."""
    anonymous, other = f"{user}-a", f"{user}-w"
    key = client.keys.create("browser", "write")["key"]
    send(client, 0, view(user, "U1"))
    send(client, 1, visit(anonymous, "A1"))
    with api.client(key) as browser:
        send_as = {"id": f"{user}-claim", "type": "view_item", "items": [{"item_id": "U2"}]}
        browser.post_event({**send_as, "user_id": user, "anonymous_id": anonymous})
    wait_until(lambda: client.profile(user)["event_count"] == 3, "the claim")
    send(client, 2, visit(anonymous, "A2"))
    send(client, 3, view(other, "W1", anonymous_id=anonymous))
    send(client, 4, visit(anonymous, "A3"))
    assert [client.profile(one)["event_count"] for one in (user, other)] == [4, 2]
    portrait(user, anonymous)
    assert [client.profile(one)["event_count"] for one in (user, other)] == [2, 4]
    note = owners_key(partition_of(named.of_anonymous(anonymous)))
    owner = named.of_user(other).encode()
    assert store.hget(note, named.of_anonymous(anonymous)) == owner + b"+"
    rows = raw(store, named, user, other)
    rebuild(api.settings)
    assert raw(store, named, user, other) == rows
    portrait(other, anonymous)
    assert [client.profile(one)["event_count"] for one in (user, other, anonymous)] == [2, 1, 3]


def test_nothing_but_the_anonymous_ids_events_leaves_no_row(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous = f"{user}-a"
    send(client, 0, visit(anonymous, "A1"))
    send(client, 1, {"type": "login", "user_id": user, "anonymous_id": anonymous})
    send(client, 2, visit(anonymous, "A2"))
    link = find_link(api.settings, user, anonymous)
    parts = Archive(api.settings.home / "archive" / "events")
    wait_until(lambda: sum(len(e) for _, e in parts.histories([link.user])) == 2, "the archive")

    def is_login(table: pa.Table) -> list[bool]:
        rows = table.select(["user", "anonymous"]).to_pylist()
        return [row["user"] == link.user and not row["anonymous"] for row in rows]

    rewrite_archive(  # as by a log that lost the login
        api.settings.home,
        lambda path: sum(is_login(pq.read_table(path))),
        lambda table: table.filter(pa.array([not yes for yes in is_login(table)], pa.bool_())),
    )
    add_unlinking(store, *link)
    undo(api, user, anonymous)
    assert not store.exists(row_key(link.user))
    assert client.profile(anonymous)["event_count"] == 2


def test_the_archive_alone_tells_the_two_apart(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    user, anonymous = pair(named, user, same=False)
    live(client, user, anonymous, wrong=True)
    portrait(user, anonymous)
    archive = Archive(api.settings.home / "archive" / "events")
    people = [named.of_user(user), named.of_anonymous(anonymous)]
    wait_until(lambda: sum(len(e) for _, e in archive.histories(people)) == 11, "the archive")
    found = dict(archive.histories(people))
    assert not [e for events in found.values() for e in events if e.linked is not None]
    assert [e.id for e in found[people[1]]] == [f"{anonymous}-{n}" for n in (1, 2, 5, 6, 8, 10)]


def test_what_cannot_be_undone_is_refused_and_nothing_changes(
    api: Api, client: Client, store: Any, named: Pseudonyms, user: str
) -> None:
    anonymous, other = f"{user}-a", f"{user}-o"
    live(client, user, anonymous, wrong=True)
    send(client, 0, view(other, "O1", anonymous_id=anonymous))  # stays the first user's

    def refused(one: str, another: str, why: str) -> None:
        before = raw(store, named, user, anonymous)
        lines = portrait(one, another, code=2).splitlines()
        assert why in lines[-1], lines
        assert lines[-1].startswith("portrait: ")
        assert raw(store, named, user, anonymous) == before
        assert not read_unlinking(store, api.settings.partitions)

    refused(f"{user}-nobody", anonymous, "no event of user")
    refused(user, f"{user}-nothing", "belongs to nobody")
    refused(other, anonymous, "belongs to another user")
    with lock_history(api.settings.home, alone=False):
        refused(user, anonymous, "a rebuild or")
    (api.settings.home / "import.lock").touch()
    with hold_folder(api.settings.home / "import.lock"):
        refused(user, anonymous, "an import is running")
    with lock_history(api.settings.home, alone=True), pytest.raises(ConflictError, match="unlink"):
        rebuild(api.settings, users=[])
    begun = client.privacy.erase_all([other])
    client.privacy.wait_erased(begun["erasure_id"])
    refused(other, anonymous, "has been erased")
    client.privacy.wait_erased(client.privacy.erase_all([user])["erasure_id"])
    refused(user, anonymous, "has been erased")


def test_swept_histories_are_refused(api: Api, client: Client, store: Any, user: str) -> None:
    anonymous = f"{user}-a"
    live(client, user, anonymous, wrong=True)
    archive = Archive(api.settings.home / "archive" / "events")
    one = Pseudonyms.load(api.settings.home).of_user(user)
    wait_until(lambda: sum(len(e) for _, e in archive.histories([one])) == 9, "the archive")
    sweep_old(api.settings.home, BEGIN_MS + 400 * 86_400_000)
    assert "fewer events" in portrait(user, anonymous, code=2)
    assert client.profile(user)["event_count"] == 11


def test_without_a_service_nothing_is_begun(
    api: Api, client: Client, user: str, store: Any
) -> None:
    anonymous = f"{user}-a"
    live(client, user, anonymous, wrong=True)
    api.stop_updater()
    try:
        assert "no service is running" in portrait(user, anonymous, code=2)
    finally:
        api.start_updater()
    assert not read_unlinking(store, api.settings.partitions)
