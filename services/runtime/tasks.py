"""Ending background tasks of the event loop."""

import asyncio
from typing import Any, Final

_PATIENCE_S: Final = 0.5


async def end(task: "asyncio.Task[Any] | None") -> None:
    """Cancel ``task`` and return when it has ended, however that came.

    It is cancelled again and again: in Python 3.11 a cancellation that meets a timeout of
    `asyncio.wait_for` may be lost, and who awaits the task then waits for ever.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE_S)
