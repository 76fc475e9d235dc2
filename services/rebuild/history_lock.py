"""The right to change histories: who undoes a link has it alone, rebuilds go side by side.

The lock is the kernel's, so whoever is killed gives it up.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_repo.erasure.running_work import hold_folder
from feature_repo.errors import ConflictError


@contextmanager
def lock_history(home: Path, *, alone: bool) -> Iterator[None]:
    """Hold the histories of a state folder as they are, or alone to change them.

    Raises
    ------
    ConflictError
        If somebody has them alone, or, where it is to be alone, anyhow; or imports.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "history.lock").open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            running = "a rebuild or `portrait privacy unlink`" if alone else "`privacy unlink`"
            raise ConflictError(f"{running} is running: wait for it to end") from None
        if not alone:
            yield
            return
        imports = home / "import.lock"
        imports.touch()
        with hold_folder(imports, wait=False) as mine:
            if not mine:
                raise ConflictError("an import is running: wait for it to end")
            yield
