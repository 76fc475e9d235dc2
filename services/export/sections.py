"""The lists of an export that are no events: audiences, the campaigns' ledger, dead letters.

Belongs here: reading them a page at a time, each in the form that `schemas` says.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.live import User, is_member
from feature_repo.audiences.plan import plan
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import iso
from feature_repo.online.connection import translated
from feature_repo.online.live_row import LiveState
from services.audiences.index import AudienceIndex
from services.audiences.requests import all_known
from services.audiences.watch import CHANGES
from services.campaigns.keys import decisions_key, sent_key
from services.campaigns.ledger import log_note, parse_decision, parse_message
from services.context import users
from services.context.context import Context
from services.event_log.dead_letters import DeadLetter, find_letters
from services.export.paged_history import PlacedBytes
from services.export.pool import EXPORTING
from services.export.schemas import (
    AudienceChange,
    ExportedDecision,
    ExportedLetter,
    ExportedMessage,
)
from services.export.user_events import MergedEvent, show_event

_PAGE: Final = 250
_PREFIX: Final = "id:"


async def find_memberships(
    context: Context, pseudonym: str, row: LiveState, now_ms: int
) -> list[str]:
    """Return the audiences that the user is in, by name.

    Real-time ones are asked of the row, the others of the archive's index.
    """
    index = await context.of(AudienceIndex).present()
    _, known = await all_known(context)
    user = User(pseudonym, users.profile_of(row), now_ms // 1000, context.settings.standing)

    def holds(name: str) -> bool:
        definition = known[name]
        if plan(definition, known)["mode"] == "realtime":
            return is_member(definition, known, user)
        query = compile_definition(definition, known, now_ms=now_ms, past=index.is_past(now_ms))
        values = {**query.parameters, "entity": pseudonym}
        return bool(index.rows(query.holds(), values)[0][0])

    return await EXPORTING.run(lambda: [name for name in sorted(known) if holds(name)])


async def read_changes(context: Context, pseudonym: str) -> AsyncIterator[list[AudienceChange]]:
    """Yield when the user entered and left audiences, as far as it is kept."""
    start, needle = "-", pseudonym.encode()
    while True:
        with translated():
            page = await context.store.xrange(CHANGES, start, "+", count=_PAGE)
        mine = [fields for _, fields in page if fields.get(b"user") == needle]
        if mine:
            yield [_show_change(fields) for fields in mine]
        if len(page) < _PAGE:
            return
        start = f"({page[-1][0].decode()}"


def _show_change(fields: dict[bytes, bytes]) -> AudienceChange:
    return {
        "audience": fields[b"audience"].decode(),
        "change": "entered" if fields[b"change"] == b"entered" else "left",
        "at": iso(int(fields[b"at_ms"])),
        "version": int(fields[b"version"]),
    }


async def read_decisions(context: Context, pseudonym: str) -> AsyncIterator[list[ExportedDecision]]:
    """Yield what campaigns decided about the user and keep."""
    key = decisions_key(pseudonym)
    with translated():
        names = await context.store.hkeys(key)
    notes = frozenset(names)
    for start in range(0, len(names), _PAGE):
        some = names[start : start + _PAGE]
        with translated():
            values = await context.store.hmget(key, some)
        shown = [
            _show_decision(field, value, notes)
            for field, value in zip(some, values, strict=True)
            if value is not None
        ]
        yield [one for one in shown if one is not None]


def _show_decision(field: bytes, value: bytes, notes: frozenset[bytes]) -> ExportedDecision | None:
    found = parse_decision(field, value)
    if found is None:
        return None
    campaign, decision, settled = found
    return {
        "campaign_id": campaign,
        "decision_id": _name_of(decision),
        "blocked": list(settled.blocked),
        "logged": log_note(field) in notes,
        "decision": settled.draft,
    }


async def read_messages(context: Context, pseudonym: str) -> AsyncIterator[list[ExportedMessage]]:
    """Yield the messages that count against caps, oldest first."""
    start = 0
    while True:
        with translated():
            page = await context.store.zrange(
                sent_key(pseudonym), start, start + _PAGE - 1, withscores=True
            )
        if page:
            yield [_show_message(name, at_ms) for name, at_ms in page]
        if len(page) < _PAGE:
            return
        start += _PAGE


def _show_message(name: bytes, at_ms: float) -> ExportedMessage:
    channel, campaign, decision = parse_message(name)
    return {
        "campaign_id": campaign, "channel": channel, "decision_id": _name_of(decision),
        "at": iso(int(at_ms)),
    }  # fmt: skip


def _name_of(decision: str) -> str | None:
    return decision.removeprefix(_PREFIX) if decision.startswith(_PREFIX) else None


async def read_letters(context: Context, pseudonyms: Sequence[str]) -> list[DeadLetter]:
    """Return the dead letters in which one of some people stands."""
    found = dict[str, DeadLetter]()
    for partition in sorted({partition_of(each) for each in pseudonyms}):
        async for letter in find_letters(context.store, partition, pseudonyms):
            if letter.event is None or letter.event.user in pseudonyms:
                found[letter.id] = letter
    return list(found.values())


def show_letter(letter: DeadLetter, pseudonym: str) -> ExportedLetter:
    """Return a dead letter as an export shows it."""
    event: Any = None
    if letter.event is not None:
        ms, seq = map(int, letter.entry.split("-"))
        of = None if letter.event.user == pseudonym else letter.event.user
        placed = PlacedBytes((ms, seq, letter.event.id), letter.record, True)
        event = show_event(MergedEvent(of, placed))
    return {
        "id": letter.id, "position": letter.entry, "reason": letter.reason, "event": event,
        "record": None if event is not None else base64.b64encode(letter.record).decode(),
    }  # fmt: skip
