"""Progress of long work: one line a step, a bar on a terminal, a heartbeat in a log.

Nothing here measures or decides; a step may stay silent for at most `HEARTBEAT_S`.
"""

import sys
import threading
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

HEARTBEAT_S = 4.0

# Bound to the stream of the start: libraries are silenced by redirecting stderr meanwhile.
console = Console(file=sys.stderr, highlight=False)


class ProgressStep:
    """A piece of work in progress; call it with ``(done, total, what)`` as it moves."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self._state = (0, 0, "")
        self._started_s = time.monotonic()
        self._ended = threading.Event()
        self._bar: Progress | None = None
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started_s

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished; ``total`` 0 means unknown."""
        self._state = (done, total, what)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=done, total=total or None, description=self._text()
            )

    def say(self, text: str) -> None:
        """Print a line that stays."""
        console.print(f"    {text}", markup=False)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._bar.add_task(self.title, total=None)
            self._bar.start()
        else:
            console.print(f"==> {self.title}", markup=False)
            self._thread.start()
        return self

    def __exit__(self, error_type: object, error: object, trace: object) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        elif self._thread.is_alive():
            self._thread.join()
        mark = "done" if error is None else "stopped"
        note = f" · {self.note}" if self.note else ""
        console.print(f"{mark:>7} {self.title} in {self.seconds:.1f} s{note}", markup=False)

    def _text(self) -> str:
        what = self._state[2]
        return f"{self.title}: {what}" if what else self.title

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            done, total, what = self._state
            share = f" {done:,} of {total:,}" if total else ""
            console.print(f"    {self.seconds:.0f} s{share} {what}".rstrip(), markup=False)


step = ProgressStep
"""How a step of work is begun: ``with step("counting") as tell: tell(1, 2)``."""
