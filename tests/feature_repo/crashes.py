"""Crashes on purpose: the process dies right after, or right before, the n-th step it takes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feature_repo.archive import part_set

FILE_STEPS: list[tuple[Any, str]] = [
    (Path, "symlink_to"), (Path, "hardlink_to"), (Path, "replace"), (Path, "mkdir"),
    (Path, "unlink"), (Path, "open"), (os, "fsync"), (os, "utime"), (shutil, "rmtree"),
    (part_set, "_swap"),
]  # fmt: skip
STORE_STEPS = ("evalsha", "eval", "hmget", "hget", "xrange", "xadd", "hset")


class Crash(BaseException):
    """The process died here."""


class CrashAfter:
    """Lets the steps it is put over do their work; number ``at`` (from 0) is the last.

    Nothing works after the crash: what a dying process would not do is not done.
    """

    def __init__(self, at: int) -> None:
        self.left = at

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.left < 0:
                raise Crash
            try:
                return function(*args, **kwargs)
            finally:
                self.left -= 1
                if self.left < 0:
                    raise Crash

        return step

    def over_files(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name in FILE_STEPS:
            patch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def over_store(self, client: Any) -> Any:
        return _Client(client, self)


class _Client:
    """A client whose calls are counted."""

    def __init__(self, client: Any, crash: CrashAfter) -> None:
        self._client, self._crash = client, crash

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._crash.wrap(found) if name in STORE_STEPS else found
