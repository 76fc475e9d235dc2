"""The bench `start`: how long `portrait serve` takes until it is ready, twice in one folder.

The first start makes the state folder; the second finds it. Timed from the process's start to the
first 200 of ``/health/ready``, Ray and the proxy included.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.hosting.embedded import free_port
from services.hosting.serve import running
from services.settings import Settings

Tell = Callable[[int, int, str], None]


def measure_start(tell: Tell, *, model: Path | None = None, starts: int = 3) -> dict[str, Any]:
    """Start and end a service several times in a new state folder.

    Returns
    -------
    dict
        ``first_start_s`` and ``next_starts_s``.
    """
    taken = []
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        for number in range(starts):
            tell(number, starts, f"start {number + 1}")
            settings = Settings(
                home=Path(folder), redis_url=None, port=free_port(), model=model,
                log_level="warning",
            )  # fmt: skip
            started_s = time.perf_counter()
            with running(settings):
                taken.append(round(time.perf_counter() - started_s, 2))
    return {"first_start_s": taken[0], "next_starts_s": taken[1:]}
