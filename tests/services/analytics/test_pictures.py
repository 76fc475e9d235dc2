"""Pictures of the archive that cannot be renewed: the older one answers on, and it is said."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from feature_repo.errors import PortraitError
from services.analytics.cube import AnalyticsCube
from services.audiences import index as audiences
from services.audiences.index import AudienceIndex
from services.gateway import operations

FAILURES = [PortraitError("no"), OSError("no"), ValueError("no"), duckdb.Error("no"), MemoryError()]


def broken(error: Exception) -> Callable[..., Any]:
    def make(*_: Any) -> Any:
        raise error

    return make


def state(index: AudienceIndex, cube: AnalyticsCube) -> Any:
    return SimpleNamespace(of={AudienceIndex: index, AnalyticsCube: cube}.__getitem__)


async def renewed(picture: Any) -> Any:
    """Ask twice: the first call finds that it is time, the second has what came of it."""
    found = await picture.present()
    await asyncio.gather(picture._making, return_exceptions=True)
    return found


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_an_index_that_cannot_be_renewed_is_said_to_be_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def run() -> None:
        index = AudienceIndex(tmp_path)
        cube = AnalyticsCube(index)
        old = await index.present()
        assert operations.list_degraded(state(index, cube)) == []
        index._made_of = frozenset({"another part"})
        index._next_s = 0
        with monkeypatch.context() as patched:
            patched.setattr(audiences, "Index", broken(error))
            assert await renewed(index) is old
        assert operations.list_degraded(state(index, cube)) == ["audiences", "analytics"]
        text = operations.archive_metrics(state(index, cube))
        assert 'portrait_archive_stale{picture="analytics"} 1\n' in text
        assert 'portrait_archive_odd_rows{column="tz"} 0\n' in text
        index._next_s = 0
        await renewed(index)
        assert await index.present() is not old
        assert operations.list_degraded(state(index, cube)) == []
        await index.stop()

    asyncio.run(run())


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_cube_that_cannot_be_renewed_is_said_to_be_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def run() -> None:
        index = AudienceIndex(tmp_path)
        cube = AnalyticsCube(index)
        old = await cube.present()
        assert operations.list_degraded(state(index, cube)) == []
        index._present = SimpleNamespace()  # another one
        cube._next_s = 0
        monkeypatch.setattr("services.analytics.cube.Cube", broken(error))
        assert await renewed(cube) is old
        assert operations.list_degraded(state(index, cube)) == ["analytics"]

    asyncio.run(run())
