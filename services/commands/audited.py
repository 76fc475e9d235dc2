"""Commands of which the audit keeps that they were run, by whom and on whom.

Those that ask the running service are not here: the audit has them by the key that they use.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from feature_repo.errors import PortraitError
from feature_repo.events.pseudonyms import Pseudonyms
from services.commands.application import settings_with, with_store

_T = TypeVar("_T")


def with_audited_store(
    home: Path | None,
    command: str | None,
    act: Callable[[Any], Awaitable[_T]],
    *,
    target: str | None = None,
    made: Callable[[_T], str | None] = lambda found: None,
) -> _T:
    """Do what `with_store` does and note it, a refusal too.

    Parameters
    ----------
    command
        Its words; None: it is one that the audit leaves out.
    target
        What it is about.
    made
        Says of what ``act`` returns what was made, if that is the target.
    """
    from services.audit.machine import note_command
    from services.http.problems import TYPES, Problem

    if command is None:
        return with_store(home, act)

    async def run(client: Any) -> _T:
        try:
            found = await act(client)
        except PortraitError as error:
            status = TYPES[Problem.of_error(error).name].status
            await note_command(client, command, user=None, target=None, status=status)
            raise
        about = made(found) or target
        await note_command(client, command, user=None, target=about, status=200)
        return found

    return with_store(home, run)


def note_run(
    home: Path | None, command: str, *, users: Sequence[str] = (), target: str | None = None
) -> None:
    """Note a command that is about to be carried out elsewhere; on users one entry each.

    Raises
    ------
    StoreUnavailableError
        If the store does not answer: then it must not be carried out.
    """
    from services.audit.machine import note_command
    from services.audit.recorder import name_user

    settings = settings_with(home=home)
    named: list[str | None] = [None]
    if users:
        pseudonyms = Pseudonyms.load(settings.home, settings.partitions)
        named = [name_user(pseudonyms, user) for user in users]

    async def run(client: Any) -> None:
        for user in named:
            await note_command(client, command, user=user, target=target, status=200)

    with_store(home, run)
