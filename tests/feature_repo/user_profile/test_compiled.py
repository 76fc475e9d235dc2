"""The compiled fold and its source give the same bytes; a stale one is noticed."""

import hashlib
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from explicit_histories import DAY_S, START_S, event

from feature_repo.events.schema import EventRecord, ItemRecord
from feature_repo.user_profile import compiled, explicit

ROOT = Path(__file__).parents[3]

KINDS = [
    "view_item", "view_item", "add_to_cart", "purchase", "refund", "remove_from_cart",
    "not_interested", "share", "view_item_list", "try_on", "purchase", "search",
]  # fmt: skip


def _history() -> list[EventRecord]:
    """Events that reach every layout: full tables, mixed ids, late events, long silences."""
    found, at = [], START_S
    for n in range(3000):
        at += (-7200, 60, 3600, 30 * DAY_S if n % 400 == 0 else DAY_S)[n % 4]
        items = [
            ItemRecord(
                f"{'sku-' if (n + k) % 5 == 0 else ''}{100_000 + n * n * (k + 1) % (67 + n % 900)}",
                price=0.99 + k,
                quantity=k + 0.5,
                discount=0.1 if k else None,
                category=f"D{n % 7}/C{(n + k) % 90}/leaf{k}",
                brand=f"brand {(n * 3 + k) % 60}",
            )
            for k in range(n % 4 + 1)
        ]
        kind = KINDS[n * 7 % len(KINDS)]
        kind = f"try_{n % 30}" if kind == "try_on" else kind
        tz = ("Asia/Tokyo", None)[n % 2]
        found.append(event(kind, at=at, items=items, tz=tz, channel=f"c{n % 12}"))
    return found


def fold_and_digest() -> str:
    """Return a digest of the profile's bytes after every event."""
    profile, digest = explicit.new(), hashlib.sha256()
    for e in _history():
        explicit.apply(profile, e)
        stored = explicit.encode(profile)
        digest.update(stored)
        profile = explicit.decode(stored)
    return digest.hexdigest()


def _interpreted(*arguments: str) -> str:
    """Run pytest on the sources, in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--interpreted", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=os.environ | {"FOLD_DIGEST": fold_and_digest()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_bytes_are_those_that_were_expected() -> None:
    expected = os.environ.get("FOLD_DIGEST")
    if expected is None:
        pytest.skip("asked by the test below")
    assert "feature_repo.user_profile.explicit" in sys.modules
    assert all(
        sys.modules[f"feature_repo.user_profile.{name}"].__spec__.origin.endswith(".py")
        for name in compiled.names()
    )
    assert fold_and_digest() == expected


@pytest.mark.skipif("FOLD_DIGEST" in os.environ, reason="runs itself")
@pytest.mark.skipif(compiled.state() != "compiled", reason="there is no compiler here")
def test_the_sources_fold_to_the_same_bytes_and_their_examples_hold() -> None:
    sources = [str(compiled.ROOM / f"{name}.py") for name in compiled.names()]
    said = _interpreted(*sources, f"{__file__}::test_the_bytes_are_those_that_were_expected")
    assert "passed" in said
    assert "skipped" not in said


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "compiled.txt").write_text("one\ntwo\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").touch()
        (tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}").touch()
    return tmp_path


def test_modules_younger_than_their_sources_are_compiled(room: Path) -> None:
    for name in ("one", "two"):
        os.utime(room / f"{name}.py", (1, 1))
    assert compiled.state(room) == "compiled"


def test_a_source_that_changed_since_makes_them_stale(room: Path) -> None:
    os.utime(room / "two.py", (2**32, 2**32))
    assert compiled.state(room) == "stale"


def test_one_that_is_missing_makes_them_stale(room: Path) -> None:
    (room / f"two{EXTENSION_SUFFIXES[0]}").unlink()
    assert compiled.state(room) == "stale"


def test_without_any_the_sources_run(room: Path) -> None:
    for name in ("one", "two"):
        (room / f"{name}{EXTENSION_SUFFIXES[0]}").unlink()
    assert compiled.state(room) == "interpreted"
