"""The product without one of its guards: a copy of the code in which that guard is missing.

The product has no switch for it. `without` copies the packages and takes the guard's lines
out of the Lua text, and `runs` asks the server which text it was given.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any, Final, Literal

import feature_repo
from feature_repo.errors import PortraitError

Guard = Literal["fence", "last-entry", "dedup", "kept-rows"]

_PACKAGES: Final = ("feature_repo", "training", "services")
_EPOCH: Final = """if epoch ~= argv[1] then
  return {'refused', 'epoch', epoch or 'none'}
end
"""
_CURSOR: Final = """if cursor ~= argv[2] then
  if cursor == argv[3] then
    return {'again'}
  end
  return {'refused', 'cursor', cursor}
end
"""
_ENTRY: Final = """if #call('XRANGE', keys[1], argv[3], argv[3], 'COUNT', 1) == 0 then
  return {'refused', 'entry', argv[3]}
end
"""
_KNOWN: Final = """  elseif known[name] then
    answer[n] = '=' .. known[name]
"""
_VERSION: Final = """  if argv[at] ~= '' and call('HGET', keys[k], argv[10]) ~= argv[at] then
    return {'refused', 'version', keys[k]}
  end
"""
_DROPPED: Final = """        self._kept.drop(*stale)
"""
_LINES: Final[dict[Guard, dict[str, tuple[str, ...]]]] = {
    "fence": {"feature_repo/online/commit.lua": (_EPOCH, _CURSOR)},
    "last-entry": {"feature_repo/online/commit.lua": (_ENTRY,)},
    "dedup": {"services/event_log/append.lua": (_KNOWN,)},
    "kept-rows": {
        "feature_repo/online/commit.lua": (_VERSION,),
        "services/update/updater.py": (_DROPPED,),
    },
}
"""Of each guard the lines by file, first of a script. What goes together stops the same alone:
epoch and cursor an owner that was paused past its lease, versions and dropped rows one that has
its lease again and goes on from the rows it had."""


def without(guard: Guard, folder: Path) -> Path:
    """Copy the packages into ``folder``, the guard's lines left out, and return it.

    Raises
    ------
    PortraitError
        If the lines are not found exactly once.
    """
    source = Path(feature_repo.__file__).parents[1]
    for package in _PACKAGES:
        shutil.copytree(
            source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name, lines in _LINES[guard].items():
        text = (folder / name).read_text()
        for part in lines:
            if text.count(part) != 1:
                raise PortraitError(
                    f"{name} does not hold the guard {guard!r} exactly once: {part!r}"
                )
            text = text.replace(part, "")
        (folder / name).write_text(text)
    return folder


def runs(client: Any, guard: Guard, code: Path) -> bool:
    """Say whether the server was given the text in ``code`` and not the product's own."""
    name = next(iter(_LINES[guard]))
    texts = (code / name, Path(feature_repo.__file__).parents[1] / name)
    digests = [hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest() for path in texts]
    return [bool(known) for known in client.script_exists(*digests)] == [True, False]
