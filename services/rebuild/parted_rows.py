"""Rows after a link was undone: folded anew, of the user from fewer events than before.

Belongs here: the rows, and what the append script knows of these people's consent. Not here: the
histories, which tell the two apart by then (`unlink`).
"""

from typing import Any, Final

from feature_repo.archive.event_archive import Archive
from feature_repo.erasure.unlinked_rows import Link
from feature_repo.errors import PortraitError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.connection import translated
from feature_repo.online.live_row import FIELDS, row_key, version_value
from feature_repo.online.lua import Script
from feature_repo.online.previous_states import remove_previous
from feature_repo.user_profile import explicit
from services.event_log.keys import cursor_key, profiling_key
from services.event_log.unprofiled import GPC, note_of
from services.history.users import PartitionHistory
from services.models import loaded
from services.models.transition import Transition
from services.rebuild.refold import refold
from services.settings import Settings

_DROP: Final = Script("""
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HINCRBY', KEYS[1], 'rebuilt', 1)
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
""")
"""KEYS: cursor, row, who said what about profiling. ARGV: user, field of the version, version."""
_SAY: Final = Script("""
local said = redis.call('HGET', KEYS[2], ARGV[1])
if not said or string.find(said, ':', 1, true) then return 0 end
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
if ARGV[4] == '' then redis.call('HDEL', KEYS[2], ARGV[1])
else redis.call('HSET', KEYS[2], ARGV[1], ARGV[4]) end
return 1
""")
"""KEYS: row, who said what about profiling. ARGV: user, field of the version, the version that was
folded, what it says. What is on its way (with a ``:``), and a later row, say it better."""


def fold_parted(settings: Settings, client: Any, archive: Archive, link: Link, heir: str) -> None:
    """Fold anew the row of the one to whom events were given back, and the user's without them.

    Raises
    ------
    PortraitError
        If the heir's known history is shorter than their row.
    StoreUnavailableError
        If the store does not answer; repeating it is safe.
    """
    transition = loaded.begin(settings, client)
    for user in dict.fromkeys((link.anonymous, heir)):
        _follow(client, transition, partition_of(user))
        work = refold(client, archive, transition, partition_of(user), [user])
        if user != link.anonymous and work.short:
            raise PortraitError(
                "archive and log hold fewer events than the profile has seen of the user to whom "
                "the anonymous id belongs: put the missing parts back and run it again"
            )
    partition = partition_of(link.user)
    _follow(client, transition, partition)
    work = refold(client, archive, transition, partition, [link.user], fewer=True)
    profiling = profiling_key(partition)
    with translated():
        for user, row in work.done.items():
            version = version_value(row.version)
            said = note_of(explicit.decode(row.profile))
            _SAY(client, [row_key(user), profiling], [user, FIELDS[2], version, said])
        for user in work.short:  # nothing is left of them
            version = client.hget(row_key(user), FIELDS[2])
            history = PartitionHistory(client, archive, partition).all([user])
            if version is not None and not history:
                keys = [cursor_key(partition), row_key(user), profiling]
                _DROP(client, keys, [user, FIELDS[2], version])
    remove_previous(client, [link.user])  # states put by have seen the anonymous id's events
    _forget_signal(client, archive, link.user)


def _follow(client: Any, transition: Transition, partition: int) -> None:
    """Let rows follow the model that their partition does."""
    with translated():
        model = client.hget(cursor_key(partition), "model")
    if model is not None:
        transition.adopt(model.decode(), partition)


def _forget_signal(client: Any, archive: Archive, user: str) -> None:
    """Let the browser's signal of a user be written again, if what it had said was not theirs."""
    partition = partition_of(user)
    history = PartitionHistory(client, archive, partition).all([user]).get(user, [])
    if not any(event.source == GPC for _, event in history):
        with translated():
            client.hdel(profiling_key(partition), f"gpc:{user}")
