"""Compiled modules of the fold: which may stand beside their source, and whether they do.

Belongs here: finding out. Compiling itself is ``setup.py``'s work; the list is ``compiled.txt``.
"""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final, Literal

ROOM: Final = Path(__file__).parent


def names(room: Path = ROOM) -> list[str]:
    """Return the names of the modules that ``setup.py`` compiles."""
    return (room / "compiled.txt").read_text().split()


def state(room: Path = ROOM) -> Literal["compiled", "interpreted", "stale"]:
    """Say what Python imports from this folder.

    Stale is a compiled module that is older than its source, or that lacks others: what runs
    then is not what the sources say.
    """
    found = [room / f"{name}{EXTENSION_SUFFIXES[0]}" for name in names(room)]
    there = [path for path in found if path.exists()]
    if not there:
        return "interpreted"
    sources = [room / f"{name}.py" for name in names(room)]
    newest = max(path.stat().st_mtime for path in sources)
    fresh = min(path.stat().st_mtime for path in there) >= newest
    return "compiled" if fresh and len(there) == len(found) else "stale"
