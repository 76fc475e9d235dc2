"""f(u, x) for a batch of events: the explicit profile and the learned state, side by side.

Belongs here: the order in which a batch is applied and what happens to an event that cannot
be. Not here: reading the log and committing rows (`updater`), or either part of f itself.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from feature_repo import explicit
from feature_repo.events import EventRecord
from feature_repo.live_row import LiveState

_log = structlog.get_logger(__name__)


class Learned(Protocol):
    """What is needed of `training.transition.LearnedTransition`."""

    @property
    def version(self) -> str:
        """Version of the model."""
        ...

    def step(self, states: list[bytes | None], events: list[EventRecord]) -> list[bytes]:
        """Apply one event to each state."""
        ...


class _User:
    """One user's state while a batch is applied."""

    def __init__(self, before: LiveState | None, model: str) -> None:
        self.before = before
        self.profile = explicit.new() if before is None else explicit.decode(before.profile)
        self.time_ms = 0 if before is None else before.time_ms
        self.applied: list[EventRecord] = []
        # A learned state is the fold of the whole history or it is absent: a row made by
        # another model stays cold until a rebuild has folded its history with this one.
        known = before is not None and before.version > 0
        self.follows = bool(model) and (not known or (before is not None and before.model == model))
        self.learned: bytes | None = before.learned if known and before is not None else None

    def apply(self, event: EventRecord) -> None:
        """Apply ``event`` to the explicit profile, or leave everything as it was."""
        try:
            explicit.apply(self.profile, event)
        except Exception:
            start = explicit.new() if self.before is None else explicit.decode(self.before.profile)
            self.profile = explicit.fold(self.applied, start)
            raise
        self.applied.append(event)
        self.time_ms = max(self.time_ms, event.time_ms)

    def row(self, model: str) -> LiveState:
        return LiveState(
            profile=explicit.encode(self.profile),
            learned=(self.learned or b"") if self.follows else b"",
            version=self.profile.version,
            model=model if self.follows else "",
            time_ms=self.time_ms,
        )


class Transition:
    """Applies batches of events to rows.

    Parameters
    ----------
    learned
        The encoder's step; None without a model.
    """

    def __init__(self, learned: Learned | None) -> None:
        self._learned = learned
        self.model = "" if learned is None else learned.version

    def apply(
        self, rows: Mapping[str, LiveState | None], events: Sequence[EventRecord]
    ) -> tuple[dict[str, LiveState], dict[int, str]]:
        """Apply ``events`` in order and return the changed rows and what could not be applied.

        Parameters
        ----------
        rows
            Present row of every user in ``events``.
        events
            In log order; the k-th events of all users are stepped as one batch.

        Returns
        -------
        tuple
            New rows by user, and for each poison event its index and the reason.
        """
        poison = dict[int, str]()
        users = dict[str, _User]()
        queues: dict[str, list[int]] = defaultdict(list)
        for index, event in enumerate(events):
            queues[event.user].append(index)
        for user, queue in queues.items():
            try:
                users[user] = _User(rows.get(user), self.model)
            except Exception as error:  # noqa: BLE001 - an unreadable row must not stop the others
                poison |= dict.fromkeys(queue, f"unreadable row: {type(error).__name__}")
        longest = max(map(len, queues.values()), default=0)
        for k in range(longest):
            wave = [(u, queues[n][k]) for n, u in users.items() if len(queues[n]) > k]
            self._step(wave, events, poison)
        changed = {name: user.row(self.model) for name, user in users.items() if user.applied}
        return changed, poison

    def fold(self, histories: Mapping[str, Sequence[EventRecord]]) -> dict[str, LiveState]:
        """Return the rows of whole histories, each in fold order; poison events are left out.

        The bytes are those that applying the same events one by one leaves.
        """
        events = [event for history in histories.values() for event in history]
        return self.apply(dict.fromkeys(histories), events)[0]

    def _step(
        self, wave: list[tuple[_User, int]], events: Sequence[EventRecord], poison: dict[int, str]
    ) -> None:
        learned = self._encode([(u, i) for u, i in wave if u.follows], events, poison)
        for user, index in wave:
            if index in poison:
                continue
            try:
                user.apply(events[index])
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must go on
                poison[index] = _reason(error)
                continue
            if index in learned:
                user.learned = learned[index]

    def _encode(
        self, wave: list[tuple[_User, int]], events: Sequence[EventRecord], poison: dict[int, str]
    ) -> dict[int, bytes]:
        if self._learned is None or not wave:
            return {}
        states, batch = [u.learned for u, _ in wave], [events[i] for _, i in wave]
        try:
            stepped = self._learned.step(states, batch)
            return {index: state for (_, index), state in zip(wave, stepped, strict=True)}
        except Exception as error:  # noqa: BLE001 - find the one event that does it
            _log.warning("step_failed", events=len(batch), error=type(error).__name__)
        found = dict[int, bytes]()
        for user, index in wave:
            try:
                found[index] = self._learned.step([user.learned], [events[index]])[0]
            except Exception as error:  # noqa: BLE001
                poison[index] = _reason(error)
        return found


def dead_letter(entry_id: str, reason: str, payload: bytes) -> bytes:
    """Return the dead-letter stream's record of an event that could not be applied."""
    return msgspec.msgpack.encode({"entry": entry_id, "reason": reason, "record": payload})


def _reason(error: Exception) -> str:
    return f"{type(error).__name__} while applying"
