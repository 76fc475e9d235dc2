"""Denials of a purpose by users of the archive: they are left out of what counts people.

Belongs here: the users and their anonymous ids. What they said is `consents`'; whether that allows
a purpose, `feature_repo.user_profile.purposes`'.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import duckdb

from feature_repo.archive import valid_events
from feature_repo.archive.event_archive import Archive
from feature_repo.audiences import consents
from feature_repo.user_profile.consent import Consent, say, spellings
from feature_repo.user_profile.purposes import allowed, stands

_USERS: Final = """
CREATE TABLE users AS
SELECT (row_number() OVER (ORDER BY entity) - 1)::INTEGER AS u, entity
FROM (SELECT DISTINCT "user" AS entity FROM archive_events)
"""
_LINKED: Final = """
SELECT mine.u, own.u FROM (
    SELECT linked, arg_min("user", (log_ms, log_seq, event_id)) AS owner FROM archive_events
    WHERE linked IS NOT NULL GROUP BY linked
) JOIN users mine ON mine.entity = linked JOIN users own ON own.entity = owner
"""
"""Anonymous ids, each with the user whose it became."""


def find_denying(
    connection: Any, rows: Iterable[consents.Row], purpose: str, standing: Mapping[str, bool]
) -> set[int]:
    """Return the numbers of those who do not allow a purpose now, linked anonymous ids included.

    Parameters
    ----------
    connection
        Has ``users`` and ``archive_events``.
    rows
        What `consents.statements` returned.
    standing
        What stands of each purpose when nobody was asked.
    """
    said: dict[int, dict[str, Consent]] = defaultdict(dict)
    names = spellings(purpose)
    for u, name, granted, at_s, _, until_ms, ends_s in rows:
        if name in names and until_ms is None:
            say(said[u], name, Consent(granted, at_s, "", ends_s))
    now_s = int(time.time())
    if stands(purpose, standing):
        denying = {u for u, one in said.items() if not allowed(one, purpose, now_s, standing)}
    else:
        everybody: Collection[Any] = connection.execute("SELECT u FROM users").fetchall()
        denying = {u for (u,) in everybody if not allowed(said[u], purpose, now_s, standing)}
    if denying:
        links = connection.execute(_LINKED).fetchall()
        denying |= {u for u, owner in links if owner in denying}
    return denying


def read_denying(home: Path, purpose: str, standing: Mapping[str, bool]) -> set[str]:
    """Return the pseudonyms of those in an archive who do not allow a purpose now."""
    return _read(home, purpose, standing)[0]


def find_allowing(home: Path, purpose: str, standing: Mapping[str, bool]) -> Callable[[str], bool]:
    """Return what says of a pseudonym whether its user allows a purpose, by an archive."""
    denying, known = _read(home, purpose, standing)
    if stands(purpose, standing):
        return lambda user: user not in denying
    return (known - denying).__contains__


def _read(home: Path, purpose: str, standing: Mapping[str, bool]) -> tuple[set[str], set[str]]:
    """Return those who do not allow a purpose, and all of the archive."""
    parts = [str(part) for part in Archive(home / "archive" / "events").parts()]
    if not parts:
        return set(), set()
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
        connection.read_parquet(parts).create_view("stored_events")
        valid_events.prepare(connection)
        connection.execute(
            f"CREATE VIEW archive_events AS {valid_events.select_sound('stored_events')}"
        )
        connection.execute(_USERS)
        rows = consents.statements(connection)
        denying = find_denying(connection, rows, purpose, standing)
        users = connection.execute("SELECT u, entity FROM users").fetchall()
    return {entity for u, entity in users if u in denying}, {entity for _, entity in users}
