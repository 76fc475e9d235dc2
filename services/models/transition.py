"""Transition f(u, x) for a batch: the explicit profile and the learned state, side by side.

Belongs here: what a batch does to rows, which model a row follows, and what happens to an
event that cannot be applied. Not here: reading the log and committing rows (`update.updater`), or
either part of f itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from feature_repo.events.schema import EventRecord
from feature_repo.online.live_row import LiveState
from feature_repo.user_profile import explicit

if TYPE_CHECKING:
    from training.scoring.transition import LearnedTransition

MAX_MODELS: Final = 3
"""Encoders kept loaded: production, and those that rows follow."""

_log = structlog.get_logger(__name__)


class _User:
    """One user's row while a batch is applied."""

    def __init__(
        self, before: LiveState | None, model: str, profile: explicit.ExplicitProfile | None = None
    ) -> None:
        self.before = before
        self.changed = False
        # A learned state is the fold of the whole history or it is absent: a row made
        # without a model stays cold until a rebuild has folded its history with one.
        self.model = model if before is None or before.version == 0 else before.model
        self._begin(profile)

    def _begin(self, profile: explicit.ExplicitProfile | None = None) -> None:
        before = self.before
        if profile is None:
            profile = explicit.new() if before is None else explicit.decode(before.profile)
        self.profile = profile
        self.time_ms = 0 if before is None else before.time_ms
        self.learned: bytes | None = None if before is None else before.learned or None
        self.num_applied = 0
        self.moving: list[EventRecord] = []

    def apply(self, events: Sequence[EventRecord]) -> None:
        """Apply events to the explicit profile; after an exception call `restart`."""
        for event in events:
            if explicit.apply(self.profile, event):
                self.moving.append(event)
            self.num_applied += 1
            self.time_ms = max(self.time_ms, event.time_ms)

    def restart(self) -> None:
        """Go back to the row as it was read, or last kept."""
        self._begin()

    def keep(self) -> None:
        """Make the present row the one to go back to."""
        if self.num_applied:
            self.before, self.changed = self.row(), True
            self._begin()

    def row(self) -> LiveState:
        return LiveState(
            profile=explicit.encode(self.profile),
            learned=(self.learned or b"") if self.model else b"",
            version=self.profile.version,
            model=self.model,
            time_ms=self.time_ms,
        )


class Transition:
    """Applies batches of events to rows.

    A row follows the model named in it; users who have no row yet begin with the target.

    Parameters
    ----------
    learned
        The encoder of the target model; None without a model.
    load
        Gives the encoder of another model by its version, None if it is gone.
    """

    def __init__(
        self,
        learned: "LearnedTransition | None",
        load: "Callable[[str], LearnedTransition | None] | None" = None,
    ) -> None:
        self.model = "" if learned is None else learned.version
        self._models = dict[str, "LearnedTransition | None"]()
        if learned is not None:
            self._models[self.model] = learned
        self._load = load
        self._targets: dict[int, str] = {}

    def find(self, version: str) -> "LearnedTransition | None":
        """Return the encoder of a version, loaded if it was not; None if it cannot be."""
        if self._models.get(version) is None:
            self._models.pop(version, None)  # it may be there by now
        return self._load_model(version)

    def prefer(self, version: str) -> None:
        """Let new users of partitions that nobody told of a model begin with ``version``."""
        self.model = version

    def _trim(self, needed: str) -> None:
        """Let go of the encoders read longest ago, beyond `MAX_MODELS`; those may come back."""
        loaded = [version for version, each in list(self._models.items()) if each is not None]
        stays = {self.model, needed, *self._targets.values()}
        for version in [v for v in loaded if v not in stays][: max(0, len(loaded) - MAX_MODELS)]:
            self._models.pop(version, None)

    def adopt(self, version: str, partition: int | None = None) -> None:
        """Make ``version`` the target of new users, everywhere or in one partition."""
        if partition is None:
            self.model = version
            self._targets.clear()
        else:
            self._targets[partition] = version

    def apply(
        self,
        rows: Mapping[str, LiveState | None],
        events: Sequence[EventRecord],
        profiles: dict[str, explicit.ExplicitProfile] | None = None,
    ) -> tuple[dict[str, LiveState], dict[int, str]]:
        """Apply ``events`` in order and return the changed rows and what could not be applied.

        Parameters
        ----------
        rows
            Present row of every user in ``events``.
        events
            In log order; the users of a batch move side by side.
        profiles
            Profiles of rows that are decoded already; afterwards those of the changed rows.

        Returns
        -------
        tuple
            New rows by user, and for each poison event its index and the reason.
        """
        poison, profiles = dict[int, str](), {} if profiles is None else profiles
        queues: dict[str, list[int]] = defaultdict(list)
        for index, event in enumerate(events):
            queues[event.user].append(index)
        users = dict[str, _User]()
        for name, queue in queues.items():
            try:
                users[name] = _User(rows.get(name), self._target(name), profiles.pop(name, None))
            except Exception as error:  # noqa: BLE001 - an unreadable row must not stop the others
                poison |= dict.fromkeys(queue, f"unreadable row: {type(error).__name__}")
        troubled = {
            name for name, user in users.items()
            if _reason(user, [events[index] for index in queues[name]]) is not None
        }  # fmt: skip
        if not self._step([user for name, user in users.items() if name not in troubled]):
            troubled = set(users)
        for name in troubled:
            users[name].restart()
            poison |= self._one_by_one(users[name], [(i, events[i]) for i in queues[name]])
        moved = {n: user for n, user in users.items() if user.num_applied or user.changed}
        profiles |= {name: user.profile for name, user in moved.items()}
        return {name: user.row() for name, user in moved.items()}, poison

    def fold(self, histories: Mapping[str, Sequence[EventRecord]]) -> dict[str, LiveState]:
        """Return the rows of whole histories, each in fold order; poison events are left out.

        The bytes are those that applying the same events one by one leaves.
        """
        events = [event for history in histories.values() for event in history]
        return self.apply(dict.fromkeys(histories), events)[0]

    def _target(self, user: str) -> str:
        if not self._targets:
            return self.model
        return self._targets.get(int(user[2:5]), self.model)

    def _load_model(self, version: str) -> "LearnedTransition | None":
        if version not in self._models:
            self._models[version] = None if self._load is None else self._load(version)
            if self._models[version] is None:
                _log.warning("model_gone", version=version)
            else:
                self._trim(version)
        return self._models[version]

    def _step(self, users: Sequence[_User]) -> bool:
        """Move the learned states by what was applied; False if one event cannot be."""
        by_model: dict[str, list[_User]] = defaultdict(list)
        for user in users:
            if user.model:
                by_model[user.model].append(user)
        for version, some in by_model.items():
            learned = self._load_model(version)
            if learned is None:  # a state that cannot follow is no state
                for user in some:
                    user.model = ""
                continue
            try:
                states = learned.replay([u.moving for u in some], [u.learned for u in some])
            except Exception as error:  # noqa: BLE001 - the caller finds the one event that does it
                _log.warning("step_failed", users=len(some), error=type(error).__name__)
                return False
            for user, state in zip(some, states, strict=True):
                user.learned = state
        return True

    def _one_by_one(self, user: _User, events: Sequence[tuple[int, EventRecord]]) -> dict[int, str]:
        """Apply what can be applied, and return the rest with the reasons."""
        poison = dict[int, str]()
        for index, event in events:
            reason = _reason(user, [event])
            if reason is None and not self._step([user]):
                reason = "the model cannot apply it"
            if reason is None:
                user.keep()
            else:
                user.restart()
                poison[index] = reason
        return poison


def dead_letter(entry_id: str, reason: str, payload: bytes) -> bytes:
    """Return the dead-letter stream's record of an event that could not be applied."""
    return msgspec.msgpack.encode({"entry": entry_id, "reason": reason, "record": payload})


def _reason(user: _User, events: Sequence[EventRecord]) -> str | None:
    try:
        user.apply(events)
    except Exception as error:  # noqa: BLE001 - whatever it is, the log must go on
        return f"{type(error).__name__} while applying"
    return None
