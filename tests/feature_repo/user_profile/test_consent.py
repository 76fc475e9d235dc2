"""Consent: which of several statements holds, whatever their order, clocks and links."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.archive.event_archive import Archive, LogPosition
from feature_repo.audiences import language, live
from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.events.schema import EventRecord
from feature_repo.user_profile import explicit
from feature_repo.user_profile.consent import MAX_PURPOSES, TERMS, Consent
from feature_repo.user_profile.merged_history import merge_histories
from feature_repo.user_profile.purposes import DEFAULTS, PURPOSES, allowed
from feature_repo.user_profile.state import ExplicitProfile

START_S = 1_700_000_000
KNOWN, GUESTS = "{p000}" + "k" * 26, ["{p000}" + letter * 26 for letter in "ab"]
ASKED = ("email", "ads", "profiling")
NAMES = ("email", "marketing_email", "ads", "profiling")
LASTS_S = 30
OWN = ("whatsapp", "marketing_whatsapp")
"""A purpose of the shop's own."""
Said = list[tuple[int, bool]]


@st.composite
def logs(draw: st.DrawFn) -> list[EventRecord]:
    """Draw what a user and guests said, and links, in the order of arrival."""
    log, linked = list[EventRecord](), set[str]()
    received_s = START_S
    for number in range(draw(st.integers(1, 14))):
        received_s += draw(st.sampled_from([0, 0, 1, 60]))
        user = draw(st.sampled_from([KNOWN, *[g for g in GUESTS if g not in linked]]))
        link = draw(st.sampled_from([None, *GUESTS])) if user == KNOWN else None
        linked |= {link} - {None}
        log.append(
            EventRecord(
                id=f"e{number}", type="consent_updated", user=user, linked=link,
                anonymous=user != KNOWN, received_ms=received_s * 1000,
                time_ms=(received_s + draw(st.sampled_from([0, 0, -61, -1, 1, 299]))) * 1000,
                consent=draw(st.dictionaries(st.sampled_from(NAMES), st.booleans())),
            )
        )  # fmt: skip
        set_terms(log[-1])
    return log


def set_terms(event: EventRecord) -> None:
    """Let every grant of an odd second end."""
    at_s = min(event.time_ms, event.received_ms) // 1000
    terms = {name: {"expires_at": at_s + LASTS_S, "version": "2"} for name in NAMES}
    event.properties = {TERMS: terms} if at_s % 2 else None


def granted(said: Said) -> bool | None:
    """Return what the latest statement says; of several at one second, whether all grant."""
    last = max((at for at, _ in said), default=None)
    return None if last is None else all(yes for at, yes in said if at == last)


def expected(log: list[EventRecord], purpose: str, now_s: int) -> bool:
    """Return whether a purpose is allowed, by the words of the page on profiles."""
    said: dict[str, Said] = {user: [] for user in (KNOWN, *GUESTS)}
    for event in log:
        if event.linked is not None:
            own, theirs = said[KNOWN], said.pop(event.linked, [])
            sides = granted(own), granted(theirs)
            if sides == (True, False):
                own[:] = [each for each in own if not each[1]]
            elif sides == (False, True):
                theirs = [each for each in theirs if not each[1]]
            own += theirs
        for name in (purpose, f"marketing_{purpose}"):
            if name in (event.consent or {}):
                at = min(event.time_ms, event.received_ms) // 1000
                said[event.user].append((at, event.consent[name]))
    last = max((at for at, _ in said[KNOWN]), default=0)
    holds = granted(said[KNOWN])
    if holds is None or (holds and last % 2 and now_s >= last + LASTS_S):
        return purpose == "profiling"  # what stands when nobody was asked
    return holds


def profile_of(log: list[EventRecord]) -> ExplicitProfile:
    placed = [(LogPosition(1_000 + n, 0), event) for n, event in enumerate(log)]
    own = [each for each in placed if each[1].user == KNOWN]
    named = {event.linked for _, event in own}
    theirs = {g: [each for each in placed if each[1].user == g] for g in GUESTS if g in named}
    return explicit.fold(merge_histories(own, theirs))


@given(log=logs(), later_s=st.sampled_from([0, 1, LASTS_S, 90]))
@settings(max_examples=300)
def test_consent_is_what_the_oracle_says(log: list[EventRecord], later_s: int) -> None:
    if any(event.user == KNOWN for event in log):
        consent, now_s = profile_of(log).consent, log[-1].received_ms // 1000 + later_s
        assert {p: allowed(consent, p, now_s) for p in ASKED} == {
            p: expected(log, p, now_s) for p in ASKED
        }


@given(log=logs(), cut=st.integers(1, 14))
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_offline_consent_is_the_live_one_now_and_as_of_any_moment(
    log: list[EventRecord], cut: int
) -> None:
    for event in log:  # as of a moment means by event time: nothing comes late here
        event.time_ms = max(event.time_ms, event.received_ms)
        set_terms(event)
    with tempfile.TemporaryDirectory() as folder:
        entries = [(LogPosition(1_000 + n, 0), event) for n, event in enumerate(log)]
        Archive(Path(folder) / "archive" / "events").append("one", entries)
        with Index(Path(folder)) as index:
            for now_ms in (log[min(cut, len(log)) - 1].received_ms, log[-1].received_ms + 10**6):
                seen = [event for event in log if event.received_ms <= now_ms]
                if any(event.user == KNOWN for event in seen):
                    found = {p: _offline(index, p, now_ms) for p in ASKED}
                    # who is ahead has no event yet: an audience does not know them
                    if any(e.user == KNOWN and e.time_ms <= now_ms for e in seen):
                        assert found == {p: expected(seen, p, now_ms // 1000) for p in ASKED}


def _offline(index: Index, purpose: str, now_ms: int) -> bool:
    body = {"rule": {"event": {"type": "consent_updated"}}, "consent": [purpose]}
    query = compile_definition(language.read(body), {}, now_ms=now_ms, past=True)
    return index.rows(query.holds(), {**query.parameters, "entity": KNOWN}) == [(1,)]


def said(consent: dict[str, bool], at_s: int, **more: Any) -> EventRecord:
    given = {"type": "consent_updated", "received_ms": at_s * 1000, **more}
    return EventRecord(id="e", user=KNOWN, time_ms=at_s * 1000, consent=consent, **given)


def test_a_clock_that_is_ahead_outvotes_no_later_withdrawal() -> None:
    ahead = said({"email": True}, START_S + 240, received_ms=START_S * 1000)
    consent = explicit.fold([ahead, said({"email": False}, START_S + 1)]).consent
    assert consent["email"] == Consent(False, START_S + 1, "")


def test_further_purposes_push_no_denial_out() -> None:
    log = [said({"email": False}, START_S)]
    log += [said({f"more-{n}": True}, START_S + n) for n in range(MAX_PURPOSES + 5)]
    log += [said({"email": True}, START_S - 60, received_ms=(START_S + 99) * 1000)]
    consent = explicit.fold(log).consent
    assert (len(consent), consent["email"].granted) == (MAX_PURPOSES + 1, False)
    later = explicit.fold([*log, said({"email": True}, START_S + 100)]).consent
    assert later["email"].granted


@pytest.mark.parametrize(("granted", "denied"), [OWN, OWN[::-1]])
def test_a_denial_without_room_counts_for_the_other_spelling(
    granted: str, denied: str, tmp_path: Path
) -> None:
    more = [f"more-{n}" for n in range(MAX_PURPOSES - 1)]
    log = [said(dict.fromkeys([granted, *more], True), START_S), said({denied: False}, START_S + 1)]
    consent = explicit.fold(log).consent
    told = [allowed(consent, name, START_S) for name in (granted, more[0])]
    assert (len(consent), told) == (MAX_PURPOSES, [False, True])
    archived = [(LogPosition(1_000 + n, 0), event) for n, event in enumerate(log)]
    archived = [(p, msgspec.structs.replace(e, id=str(p.ms))) for p, e in archived]
    Archive(tmp_path / "archive" / "events").append("one", archived)
    with Index(tmp_path) as index:
        for at_s, expected_ in ((START_S, True), (START_S + 2, False)):
            assert [_offline(index, p, at_s * 1000) for p in (*OWN, more[0])] == [
                expected_, expected_, True,
            ]  # fmt: skip


@pytest.mark.parametrize(
    ("channel", "left"),
    [("email", {"sms", "push"}), ("marketing_email", {"sms", "push"}), ("Push", {"email", "sms"}),
     (None, set())],
)  # fmt: skip
def test_who_unsubscribes_withdraws_the_channel_in_either_spelling(
    channel: str | None, left: set[str]
) -> None:
    names = [name for one in ("email", "sms", "push") for name in (one, f"marketing_{one}")]
    left_off = said({}, START_S + 1, type="message_unsubscribed", channel=channel)
    left_off.consent = None
    profile = explicit.fold([said(dict.fromkeys(names, True), START_S), left_off])
    consent = profile.consent
    assert {name for name in names if allowed(consent, name, START_S)} == left | {
        f"marketing_{one}" for one in left
    }
    user = live.User(KNOWN, profile, START_S + 2)
    for name in names:
        body = {"rule": {"event": {"type": "consent_updated"}}, "consent": [name]}
        assert live.is_member(language.read(body), {}, user) == allowed(consent, name, START_S)


def test_the_later_statement_holds_in_whichever_spelling() -> None:
    log = [said({"email": True}, START_S), said({"marketing_email": False}, START_S + 1)]
    assert not allowed(explicit.fold(log).consent, "email", START_S)
    log.append(said({"email": True}, START_S + 2))
    consent = explicit.fold(log).consent
    assert all(allowed(consent, name, START_S) for name in ("email", "marketing_email"))


def test_a_purpose_with_a_name_always_has_room() -> None:
    log = [said({f"more-{n}": True for n in range(MAX_PURPOSES + 5)}, START_S)]
    log += [said(dict.fromkeys(PURPOSES, False), START_S + 1)]
    consent = explicit.fold(log).consent
    assert len(consent) == MAX_PURPOSES + len(PURPOSES)
    assert not any(allowed(consent, purpose, START_S) for purpose in PURPOSES)


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("standing", [True, False])
def test_what_stands_when_nobody_was_asked_is_a_setting(purpose: str, standing: bool) -> None:
    defaults = {**DEFAULTS, purpose: standing}
    bare = purpose.removeprefix("marketing_")
    assert [allowed({}, name, 0, defaults) for name in (purpose, bare)] == [standing] * 2
    for name in (purpose, bare):
        for granted_ in (True, False):
            consent = explicit.fold([said({name: granted_}, START_S)]).consent
            assert allowed(consent, purpose, START_S, defaults) == granted_
    assert not allowed({}, "newsletter", 0, defaults)


def test_terms_that_cannot_be_read_end_the_grant_at_once() -> None:
    given = {TERMS: {"email": {"expires_at": "soon", "version": 7}, "ads": "none"}}
    consent = explicit.fold([said({"email": True, "ads": True}, START_S, properties=given)]).consent
    assert [allowed(consent, name, START_S) for name in ("email", "ads")] == [False, True]
    assert consent["email"].version == ""


def test_statements_of_yesterdays_rows_are_read() -> None:
    old = msgspec.msgpack.encode([{"email": [True, START_S, "web"]}, []])
    profile = msgspec.structs.replace(explicit.new(), packed_consent=msgspec.Raw(old))
    read = explicit.decode(msgspec.msgpack.encode(profile))
    assert read.consent["email"] == Consent(True, START_S, "web")
    assert allowed(read.consent, "email", 2**31)
