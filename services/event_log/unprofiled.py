"""Events of users who deny profiling: what of them is kept.

Nothing but what they say about consent, and the link that makes an anonymous id theirs. Belongs
here: which part of an event that is. Who denies it is the append script's to look up, in what the
updater's commit noted (`feature_repo.online.live_rows`).
"""

from typing import Final

from feature_repo.events.schema import EventRecord
from feature_repo.events.types import find_types
from feature_repo.user_profile.consent import (
    find_statement,
    only_statements,
    read_statements,
    spellings,
)
from feature_repo.user_profile.state import ExplicitProfile

ALL: Final = b"="
GPC: Final = "gpc"
"""Source of what the browser's privacy signal says, and the beginning of its ids."""
GPC_DENIES: Final = {"ads": False, "personalization": False}
_STATING: Final = find_types("consent")
_PLAIN: Final = (b"", "")
_NAMES: Final = frozenset(spellings("profiling"))


def note_of(profile: ExplicitProfile) -> str:
    """Return what a profile says about profiling, as the append script reads it."""
    said = find_statement(profile.consent, "profiling", 0)
    if said is None:
        return ""
    return str(said.expires_at or -1) if said.granted else "0"


def may_state(record: EventRecord) -> bool:
    """Say whether an event may change what its user allows."""
    return record.consent is not None or record.linked is not None or record.type in _STATING


def keep(record: EventRecord, *, linking: bool = False) -> tuple[bytes, str]:
    """Return what is kept of an event where profiling is denied, and "0" if it denies that.

    Instead of "0" it is "once" for what the privacy signal says, which is written once for a user.

    Parameters
    ----------
    linking
        Whether it makes an anonymous id its user's.
    """
    if record.consent is None and record.type not in _STATING and not linking:
        return _PLAIN
    said = read_statements(record)
    denial = "0" if any(said.get(name) is False for name in _NAMES) else ""
    if record.type == "consent_updated":
        once = record.source == GPC and record.consent == GPC_DENIES
        return ALL, "once" if once else denial
    bare = only_statements(record, linking=linking)
    return _PLAIN if bare is None else (bare.encode(), denial)
