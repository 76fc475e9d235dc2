"""Clock of the service: the wall's, or under ``--replay-clock`` the newest event's time."""

import threading

from feature_repo.events.schema import now_ms


class ServiceClock:
    """The time by which events are validated and profiles are read.

    Parameters
    ----------
    replay
        Take event times as now: the clock then stands at the newest event it was shown, and
        at the wall clock until the first.

    Examples
    --------
    >>> clock = ServiceClock(replay=True)
    >>> clock.show(1_000); clock.show(500); clock.now_ms()
    1000
    """

    def __init__(self, *, replay: bool) -> None:
        self.replay = replay
        self._newest_ms = 0
        self._showing = threading.Lock()  # batches are read in several threads

    def show(self, time_ms: int) -> None:
        """Let the clock see an event's time; without effect on the wall clock."""
        with self._showing:
            self._newest_ms = max(self._newest_ms, time_ms)

    def now_ms(self, at_least_ms: int = 0) -> int:
        """Return now; on the replay clock not before ``at_least_ms`` (a profile's last event)."""
        if not self.replay:
            return now_ms()
        return max(self._newest_ms, at_least_ms) or now_ms()
