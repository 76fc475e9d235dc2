"""Promoting models: an alias given to a model, taken back by a rollback, models removed.

Each is examined first, then done in one step; who is late finds another's change and looks again.
Belongs here: what the API and the commands do. What follows a change are gateways and updaters.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from feature_repo.errors import ConflictError, GateError, NotFoundError
from services.models import folder, gate, registry, row_counts
from services.models.folder import StoredModel
from services.models.registry import AliasChange, Aliases, AliasName, note_change

_ATTEMPTS: Final = 5


class Promotion:
    """Changes of the aliases of one store.

    Parameters
    ----------
    client
        Asyncio client.
    home
        State folder with the models.
    by
        Who changes them: a key's id, or the command line.
    pinned
        The directory that ``PORTRAIT_MODEL`` names; production is then that, whatever is said.
    """

    def __init__(self, client: Any, home: Path, by: str, pinned: Path | None = None) -> None:
        self._client = client
        self._home = home
        self._by = by
        self._pinned = pinned

    async def promote(
        self, name: str, alias: AliasName = "production", *, is_forced: bool = False
    ) -> tuple[Aliases, Aliases]:
        """Give a model an alias; return the aliases before and after.

        Parameters
        ----------
        is_forced
            In spite of findings of the gate, but for those that are final.

        Raises
        ------
        NotFoundError
            If there is no such model.
        GateError
            If the gate refuses it.
        ConflictError
            If ``PORTRAIT_MODEL`` says what production is.
        """
        model = await self._find(name)
        if alias == "production":
            self._check_free()
        await _pass_gate(model, is_forced=is_forced)

        def give(found: Aliases) -> tuple[Aliases, AliasChange]:
            self._check_there(model)
            before = found.names()[alias]
            after = found
            present = getattr(found, alias)
            if present is None or (present.name, present.version) != (model.name, model.version):
                after = registry.give(found, alias, model)
            note = note_change(
                "promote", alias, model.name, before, self._by, is_forced=is_forced
            )  # fmt: skip
            return after, note

        return await self._change(give)

    async def publish(self, name: str, *, is_promoted: bool) -> tuple[Aliases, Aliases]:
        """Make a model that was just trained candidate; and production, if wished or if none is.

        Raises
        ------
        NotFoundError, GateError
            See `promote`.
        """
        model = await self._find(name)
        await _pass_gate(model, is_forced=False)

        def give(found: Aliases) -> tuple[Aliases, AliasChange]:
            after = registry.give(found, "candidate", model)
            alias, before = "candidate", found.names()["candidate"]
            if is_promoted or found.production is None:
                alias, before = "production", found.names()["production"]
                after = registry.give(after, "production", model)
            return after, note_change("publish", alias, model.name, before, self._by)

        return await self._change(give)

    async def roll_back(self, production: str | None = None) -> tuple[Aliases, Aliases]:
        """Make the previous production production again; return the aliases before and after.

        Parameters
        ----------
        production
            What has to be production now; None: whatever is.

        Raises
        ------
        ConflictError
            If it is not, there was no other, its directory is gone, or ``PORTRAIT_MODEL`` says what
            production is.
        GateError
            If it no longer fits.
        """
        self._check_free()
        previous = (await registry.read_async(self._client)).previous
        if previous is not None:
            path = await asyncio.to_thread(registry.path_of, self._home, previous)
            model = None if path is None else await asyncio.to_thread(folder.read, path)
            if model is None:
                raise ConflictError(
                    f"{previous.name}, which was production before, is not below "
                    f"{self._home / folder.FOLDER} any more: promote another"
                )
            await _pass_gate(model, is_forced=True)

        def go_back(found: Aliases) -> tuple[Aliases, AliasChange]:
            if found.previous != previous:
                raise ConflictError("the aliases changed meanwhile: read them, then decide")
            if production is not None and found.names()["production"] != production:
                raise ConflictError(
                    f"production is {found.names()['production']}, not {production}: "
                    "nothing was taken back"
                )
            after = registry.go_back(found)
            name = after.names()["production"] or ""
            before = found.names()["production"]
            return after, note_change("rollback", "production", name, before, self._by)

        return await self._change(go_back)

    async def remove(self, name: str, *, is_forced: bool = False) -> tuple[Aliases, Aliases]:
        """Remove a model's directory; return the aliases before and after.

        Parameters
        ----------
        is_forced
            Though rows follow it: they go by their explicit profile until they are encoded anew.

        Raises
        ------
        NotFoundError
            If there is no such model.
        ConflictError
            If an alias names it, a rollback would make it production, or rows follow it.
        """
        model = await self._find(name)
        rows = row_counts.add_up(await row_counts.read_async(self._client))[model.version]

        def forget(found: Aliases) -> tuple[Aliases, AliasChange]:
            if aliases := found.of(name):
                raise ConflictError(
                    f"{name} is {' and '.join(aliases)}: give that alias to another model first"
                )
            if found.previous is not None and found.previous.name == name:
                raise ConflictError(
                    f"{name} is what a rollback makes production: promote another model first"
                )
            if rows and not is_forced:
                raise ConflictError(
                    f"{rows:,} rows still follow {name}: wait until they are encoded anew, or "
                    "force it"
                )
            past = tuple(each for each in found.past if each.name != name)
            after = msgspec.structs.replace(found, past=past)
            return after, note_change("remove", "", name, None, self._by)

        forget(await registry.read_async(self._client))
        # Away first: who promotes it looks whether it is there, after the aliases were read.
        beside = await asyncio.to_thread(_put_aside, model.path)
        try:
            done = await self._change(forget, is_always=True)
        except BaseException:
            beside.rename(model.path)
            raise
        await asyncio.to_thread(shutil.rmtree, beside)
        return done

    async def _find(self, name: str) -> StoredModel:
        found = await asyncio.to_thread(folder.find, self._home, name)
        if found is None:
            raise NotFoundError(
                f"there is no model {name!r} below {self._home / folder.FOLDER}: "
                "`portrait model list` names those there are"
            )
        return found

    def _check_there(self, model: StoredModel) -> None:
        if not model.path.exists():
            raise NotFoundError(f"{model.name} was removed meanwhile")

    def _check_free(self) -> None:
        if self._pinned is not None:
            raise ConflictError(
                f"PORTRAIT_MODEL names {self._pinned}, and that is served whatever is promoted: "
                "start the service without it first"
            )

    async def _change(
        self,
        make: Callable[[Aliases], tuple[Aliases, AliasChange]],
        *,
        is_always: bool = False,
    ) -> tuple[Aliases, Aliases]:
        for _ in range(_ATTEMPTS):
            before = await registry.read_async(self._client)
            after, note = make(before)
            if after == before and not is_always:
                return before, before
            if await registry.change(self._client, before, after, note):
                return before, after
        raise ConflictError("others keep changing the aliases: read them, then decide")


async def _pass_gate(model: StoredModel, *, is_forced: bool) -> None:
    found = await asyncio.to_thread(gate.examine, model, is_forced=is_forced)
    if found:
        raise GateError(
            f"the gate refuses {model.name}", [(each.rule, each.detail) for each in found]
        )


def _put_aside(path: Path) -> Path:
    beside = path.with_name(f".removed-{path.name}")  # at once no model, whatever comes
    shutil.rmtree(beside, ignore_errors=True)
    path.rename(beside)
    return beside
