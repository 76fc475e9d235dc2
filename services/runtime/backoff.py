"""Backoff: soon at first, then ever less often, what did not answer is asked again.

Pure reckoning, by a monotonic clock. A thing that hangs costs whoever asks a whole timeout;
it must not cost that every time.
"""

import time
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 4.0


class Backoff:
    """Remembers what did not answer.

    Parameters
    ----------
    clock
        Monotonic seconds.

    Examples
    --------
    >>> now = 0.0
    >>> backoff = Backoff(lambda: now)
    >>> backoff.note_failure("node")
    >>> backoff.allows("node")
    False
    >>> now = 1.0
    >>> backoff.allows("node")
    True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waits = dict[str, tuple[float, float]]()  # name -> (when to ask again, wait)

    def allows(self, name: str) -> bool:
        """Say whether it is time to ask."""
        return name not in self._waits or self._clock() >= self._waits[name][0]

    def note_failure(self, name: str) -> None:
        """Note that it did not answer: the next wait is twice as long."""
        before = self._waits.get(name, (0.0, FIRST_S / 2))[1]
        wait_s = min(LONGEST_S, 2 * before)
        self._waits[name] = (self._clock() + wait_s, wait_s)

    def note_answer(self, name: str) -> None:
        """Note that it answered."""
        self._waits.pop(name, None)
