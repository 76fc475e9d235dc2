"""The look whether the one whom an export began with is still there, and still the same.

A user may be erased, or swept as idle, while a slow reader pauses, and their id may begin anew.
Belongs here: how that is noticed before each part of an export. Who is erased how is
`services.erasure`'s.
"""

from dataclasses import dataclass
from typing import Final

from feature_repo.errors import BusyError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.online.live_row import FIELDS, LiveState, parse_live, row_key
from services.context import users
from services.context.context import Context
from services.erasure import ledger
from services.event_log.keys import cursor_key, erased_key
from services.export.pool import EXPORTING
from services.http.problems import ERASED, ProblemError

_MARGIN_MS: Final = 50
"""Files are dated by a clock that is a few milliseconds late."""


@dataclass
class SameUser:
    """Looks whether somebody is who they were.

    A row that is gone, that has fewer events than before or begins later is not theirs any more.
    An erasure that is through and lets the id begin anew may leave one that looks the same: its
    request, in the state folder, names whom it took. A row that an erasure takes raises the count
    of rebuilds, in the same step; only then these are read.

    Parameters
    ----------
    begun_ms
        When the request came, before ``row`` was read; epoch milliseconds.
    """

    context: Context
    pseudonym: str
    row: LiveState
    begun_ms: int
    _count: bytes | None = b"not read"

    async def check(self) -> None:
        """Return if what was read up to now is all of one user.

        Raises
        ------
        ProblemError
            410 once they are erased.
        BusyError
            If they are gone or somebody else now.
        StoreUnavailableError
            If the store does not answer.
        """
        partition = partition_of(self.pseudonym)
        async with self.context.store.pipeline(transaction=True) as pipe:
            pipe.sismember(erased_key(partition), self.pseudonym)
            pipe.hget(cursor_key(partition), "rebuilt")
            pipe.hmget(row_key(self.pseudonym), FIELDS)
            erased, count, values = await self.context.await_bounded(pipe.execute())
        if erased:
            raise ProblemError("erased", ERASED)
        now = parse_live(values)
        if now is None or now.version < self.row.version or _first(now) > _first(self.row):
            raise _changed()
        if count != self._count:
            home, since_ms = self.context.settings.home, self.begun_ms - _MARGIN_MS
            if self.pseudonym in await EXPORTING.run(ledger.find_written, home, since_ms):
                raise _changed()
            self._count = count


def _first(row: LiveState) -> int:
    return users.profile_of(row).first_at


def _changed() -> BusyError:
    return BusyError(
        "this user was erased or removed while the export was being written: repeat it for what "
        "is kept of them now"
    )
