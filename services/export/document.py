"""The document of an export as text, written while it is read: bounded memory for any user.

What is small is read before the first byte, so that what goes wrong there is answered as a
problem. Then the lists follow, a page at a time. If one of them cannot be read to its end the
connection is broken: the text has no ``complete`` and no closing brace. Belongs here: that order.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from feature_repo.events.schema import iso
from feature_repo.online.live_row import LiveState
from feature_repo.profile_views.shapes import Profile, ProfileConsent
from services.context import users
from services.context.context import Context
from services.event_log.dead_letters import DeadLetter
from services.export import features, sections
from services.export.learned import describe_learned
from services.export.pool import EXPORTING
from services.export.same_user import SameUser
from services.export.schemas import SCHEMA_PATH, VERSION, LinkedId
from services.export.user_events import (
    WholeUser,
    find_links,
    list_statements,
    merge_events,
    show_event,
)
from services.recommend.serving import ServedModels

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ExportSubject:
    """Whom an export is about, as the request found them.

    Attributes
    ----------
    user_id
        As it was asked for.
    same
        Whose row it was.
    consents
        What stands of each purpose.
    """

    user_id: str
    same: SameUser
    profile: Profile
    consents: dict[str, ProfileConsent]

    @property
    def pseudonym(self) -> str:
        """The user's."""
        return self.same.pseudonym

    @property
    def row(self) -> LiveState:
        """The user's row as it was at first."""
        return self.same.row


async def write_export(
    context: Context, subject: ExportSubject, now_ms: int
) -> AsyncIterator[bytes]:
    """Yield the export of a user; its first piece comes once all that is small has been read.

    Raises
    ------
    StoreUnavailableError, TooCostlyError, PortraitError
        If something cannot be read; nothing that follows makes the text whole.
    ProblemError, BusyError
        See `SameUser.check`: the user is erased or somebody else now.
    """
    writer = _Writer(subject.same)
    known = users.profile_of(subject.row)
    links, linked = await find_links(context, subject.pseudonym, known.linked)
    alone = WholeUser(subject.pseudonym, links)
    letters = await sections.read_letters(context, alone.pseudonyms)
    user = WholeUser(subject.pseudonym, links, frozenset(each.entry for each in letters))
    head = await _read_head(context, subject, linked, now_ms)
    members = await sections.find_memberships(context, subject.pseudonym, subject.row, now_ms)
    await subject.same.check()
    yield await EXPORTING.run(_open, head)

    yield b',"audiences":{"as_of":%s,"member_of":%s,"changes":[' % (
        orjson.dumps(iso(now_ms)), orjson.dumps(members)
    )  # fmt: skip
    async for text in writer.list_pages(
        "audience_changes", sections.read_changes(context, subject.pseudonym), lambda one: [one]
    ):
        yield text
    yield b']},"campaigns":{"decisions":['
    async for text in writer.list_pages(
        "decisions", sections.read_decisions(context, subject.pseudonym), lambda one: [one]
    ):
        yield text
    yield b'],"messages":['
    async for text in writer.list_pages(
        "messages", sections.read_messages(context, subject.pseudonym), lambda one: [one]
    ):
        yield text
    yield b']},"dead_letters":['
    async for text in writer.list_pages(
        "dead_letters", _paged(letters),
        lambda letter: [sections.show_letter(letter, subject.pseudonym)],
    ):  # fmt: skip
        yield text
    yield b'],"consent_history":['
    async for text in writer.list_pages(
        "consent_history", merge_events(context, user, only="stating"), list_statements
    ):
        yield text
    yield b'],"events":[\n'
    async for text in writer.list_pages(
        "events", merge_events(context, user), lambda one: [show_event(one)]
    ):
        yield text
    await subject.same.check()
    yield b'\n],"counts":%s,"complete":true}\n' % orjson.dumps(writer.counts)


async def _read_head(
    context: Context, subject: ExportSubject, linked: list[LinkedId], now_ms: int
) -> dict[str, Any]:
    """Return the members that are small: all before the lists."""
    row, home = subject.row, context.settings.home
    values = await features.read_values(context, subject.pseudonym)
    served, learned = context.of(ServedModels).find_serving(row)
    model = served.model if learned is not None else None
    return {
        "schema": SCHEMA_PATH, "schema_version": VERSION, "user_id": subject.user_id,
        "exported_at": iso(now_ms),
        "identity": {
            "pseudonym": subject.pseudonym,
            "id_type": _name_id(context, subject),
            "linked": linked,
        },
        "consents": subject.consents, "profile": subject.profile,
        "learned": await EXPORTING.run(describe_learned, row, model),
        "features": await EXPORTING.run(features.show_views, home, subject.pseudonym, values),
        "scores": await EXPORTING.run(features.read_scores, home, subject.pseudonym),
    }  # fmt: skip


def _name_id(context: Context, subject: ExportSubject) -> str:
    if subject.pseudonym == context.pseudonyms.of_user(subject.user_id):
        return "user_id"
    visitor = context.pseudonyms.of_anonymous(subject.user_id)
    return "anonymous_id" if subject.pseudonym == visitor else "linked_id"


def _open(head: dict[str, Any]) -> bytes:
    """Return the beginning of the document, its closing brace left out."""
    return orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)[:-1]


async def _paged(letters: Sequence[DeadLetter]) -> AsyncIterator[list[DeadLetter]]:
    for letter in letters:
        yield [letter]


@dataclass
class _Writer:
    """Writes lists, and counts what is in them."""

    same: SameUser
    counts: dict[str, int] = field(default_factory=dict)

    async def list_pages(
        self, name: str, pages: AsyncIterator[list[_T]], show: Callable[[_T], Iterable[Any]]
    ) -> AsyncIterator[bytes]:
        """Yield the elements of a list, a page at a time."""
        self.counts[name] = 0
        async for page in pages:
            await self.same.check()  # after it was read, before anybody is told of it
            count, text = await EXPORTING.run(_write, page, show)
            if count:
                yield (b",\n" if self.counts[name] else b"") + text
                self.counts[name] += count


def _write(page: list[_T], show: Callable[[_T], Iterable[Any]]) -> tuple[int, bytes]:
    texts = [orjson.dumps(shown) for one in page for shown in show(one)]
    return len(texts), b",\n".join(texts)
