"""For the tests of every room: compiled fold or its source, and no bound on an example's time."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from feature_repo.user_profile import compiled

_INTERPRETED = "--interpreted"
_MANY = "--many"


class _Sources(MetaPathFinder):
    """Imports the compiled modules from their sources."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> ModuleSpec | None:
        room, _, name = fullname.rpartition(".")
        if room != f"feature_repo.{compiled.ROOM.name}" or name not in compiled.names():
            return None
        return spec_from_file_location(fullname, compiled.ROOM / f"{name}.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the sources be chosen where the modules are compiled."""
    parser.addoption(_INTERPRETED, action="store_true", help="fold by the sources, not compiled")
    parser.addoption(_MANY, action="store_true", help="ten times as many examples of each property")


def pytest_configure(config: pytest.Config) -> None:
    """Choose what is imported, before anything is; no example's time decides a test."""
    slow, fixture = HealthCheck.too_slow, HealthCheck.function_scoped_fixture
    settings.register_profile(
        "shared machine", max_examples=40, deadline=None, suppress_health_check=[slow]
    )
    settings.register_profile("many", settings.get_profile("shared machine"), max_examples=400)
    settings.load_profile("many" if config.getoption(_MANY) else "shared machine")
    # For examples that put right by themselves what a fixture of the function gives them.
    settings.register_profile("one fixture for all", suppress_health_check=[slow, fixture])
    if config.getoption(_INTERPRETED):
        sys.meta_path.insert(0, _Sources())
    elif compiled.state() == "stale":
        raise pytest.UsageError("the compiled fold is older than its source: run `make setup`")
    elif compiled.state() == "compiled":
        # A compiled module has no examples; test_compiled.py runs those of the sources.
        sources = [str(compiled.ROOM / f"{name}.py") for name in compiled.names()]
        config.option.ignore = [*(config.option.ignore or []), *sources]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which of both has run; `-q` leaves out the report's head."""
    ran = "interpreted" if config.getoption(_INTERPRETED) else compiled.state()
    terminalreporter.write_line(f"fold: {ran}")
