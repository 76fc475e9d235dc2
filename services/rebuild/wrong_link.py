"""A link that is to be undone: found, or refused with the reason, before anything is changed.

Not here: undoing it (`unlink`).
"""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure.unlinked_rows import Link
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.events.pseudonyms import Pseudonyms, partition_of
from feature_repo.online.connection import connect as connect_store
from feature_repo.online.connection import translated
from feature_repo.online.live_rows import read_live
from services.event_log.dead_letters import letters
from services.event_log.keys import erased_key, owners_key
from services.event_log.links import Placed, first_owner_of, owner_of
from services.history.refolding import Refolding
from services.history.unlinking import is_unlinking
from services.history.users import PartitionHistory
from services.hosting.embedded import connect
from services.models import loaded
from services.rebuild.jobs import TIMEOUT_S
from services.settings import Settings
from services.update.lease import UPDATERS


def find_link(settings: Settings, user_id: str, anonymous_id: str) -> Link:
    """Return the link of a user and an anonymous id, which can be undone.

    Raises
    ------
    NotFoundError
        If nothing is known of the user.
    ConflictError
        If there is no such link, or it cannot be undone; says why.
    StoreUnavailableError
        If the store does not answer.
    """
    if not (settings.home / "tenant.json").exists():
        raise InvalidInputError(
            f"there is no {settings.home}: name the state folder with --home or PORTRAIT_HOME"
        )
    named = Pseudonyms.load(settings.home, settings.partitions)
    link = Link(named.of_user(user_id), named.of_anonymous(anonymous_id))
    archive = Archive(settings.home / "archive" / "events")
    with connect(settings) as url, closing(connect_store(url, timeout_s=TIMEOUT_S)) as client:
        _refuse_erased(client, link)
        with translated():
            if not client.zcard(UPDATERS):
                raise ConflictError("no service is running, which has to fold: `portrait serve`")
        if is_unlinking(client, *link):  # who began it was ended: it has been looked at
            return link
        history = PartitionHistory(client, archive, partition_of(link.user)).all([link.user])
        _refuse_unlinked(client, link, history.get(link.user, []), user_id, anonymous_id)
        _refuse_letters(client, link)
        _refuse_short(settings, client, archive, link)
    return link


def _refuse_erased(client: Any, link: Link) -> None:
    with translated():
        for one in link:
            if client.sismember(erased_key(partition_of(one)), one):
                raise ConflictError("one of the ids has been erased: nothing is left to undo")


def _read_owners(client: Any, link: Link) -> tuple[str | None, str | None]:
    """Return whose the anonymous id was first, and whose it is now."""
    with translated():
        note = client.hget(owners_key(partition_of(link.anonymous)), link.anonymous)
    first = first_owner_of(note)
    return None if first is None else first[0], owner_of(note)


def _refuse_unlinked(
    client: Any, link: Link, events: Sequence[Placed], user_id: str, anonymous_id: str
) -> None:
    if not events and read_live(client, [link.user])[0] is None:
        raise NotFoundError(f"no event of user {user_id!r} is known: nothing was changed")
    first, now = _read_owners(client, link)
    if link.user in (first, now) or any(e.linked == link.anonymous for _, e in events):
        return
    whose = "belongs to another user" if now is not None else "belongs to nobody"
    raise ConflictError(
        f"the anonymous id {anonymous_id!r} {whose}: there is no link of it with user {user_id!r}"
    )


def _refuse_letters(client: Any, link: Link) -> None:
    for letter in letters(client, [partition_of(link.user)], limit=2**31):
        event = letter.event
        if event is not None and (event.user, event.linked) == link:
            raise ConflictError(
                f"the dead letter {letter.id} names both ids: retry or drop it first "
                "(`portrait dead-letters`)"
            )


def _refuse_short(settings: Settings, client: Any, archive: Archive, link: Link) -> None:
    """Refuse where a row could not be folded again, as raw events of it have been swept."""
    users = {link.user, *filter(None, _read_owners(client, link))}
    transition = loaded.begin(settings, client)
    for user in sorted(users):
        work = Refolding(client, archive, transition, partition_of(user))
        work.begin([user])
        row = work.rows.get(user)
        if user in work.short or (row is not None and work.is_short(user, row)):
            raise ConflictError(
                "archive and log hold fewer events than the profile has seen, as after a sweep: "
                "it cannot be folded without the anonymous id's"
            )
