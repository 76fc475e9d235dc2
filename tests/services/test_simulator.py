"""The update path under thousands of seeds, each another interleaving with other faults.

A failing seed is replayed, with its trace, by ``PYTHONPATH=tests python -m simulator SEED``; one
that links anonymous ids by the same with ``links`` behind the seed.
"""

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import scenario
from simulator.links import LinkScenario
from simulator.patches import SimLoop
from simulator.scenario import Scenario
from simulator.world import Process, World

from feature_repo.online.live_row import LiveState
from services.event_log.archiver import SETTLE_MS
from services.update import linking
from services.update.kept_rows import KeptRows
from services.update.linking import Linking

SEEDS = 750
MORE_SEEDS = 22_000
LINK_SEEDS = 24
MORE_LINK_SEEDS = 4_000
BLOCK = 250
LINKS = {Scenario: "", LinkScenario: "links"}
_TESTS = Path(__file__).parents[1]

AT_LEAST = {
    "accepted": 3_000, "duplicate": 1_000, "ok": 500, "again": 2, "part": 400, "compaction": 80,
    "dead letter": 50, "kill updater": 200, "kill gateway": 200, "kill server": 60,
    "power loss": 60, "pause": 400, "lost request": 150, "lost answer": 150,
    "late request": 150, "late delivery": 150, "refused epoch": 3, "refused entry": 1,
}  # fmt: skip
"""What a block of seeds must have seen: a storm that does not blow proves nothing."""


LINKS_AT_LEAST = {
    "accepted": 400, "power loss": 12, "kill updater": 30, "rebuild": 50, "unreadable": 1,
    "left link": 6, "late link": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Keep the garbage for later: a fifth of a run's time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def weathered(start: int, count: int, kind: type[Scenario] = Scenario) -> Counter[str]:
    """Run ``count`` seeds and return what happened."""
    happened = Counter[str]()
    for seed in range(start, start + count):
        run = kind(seed)
        try:
            run.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            pytest.fail(
                f"seed {seed}: {type(error).__name__}: {error}\n"
                f"replay: PYTHONPATH=tests python -m simulator {seed} {LINKS[kind]}"
            )
        happened += run.world.happened + run.monitor.answers
    return happened


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_whatever_happens(start: int) -> None:
    happened = weathered(start, BLOCK)
    lacking = {what: happened[what] for what, least in AT_LEAST.items() if happened[what] < least}
    assert not lacking


@pytest.mark.slow
@pytest.mark.parametrize("start", range(SEEDS, SEEDS + MORE_SEEDS, 2_000))
def test_every_invariant_holds_for_ten_times_as_many(start: int) -> None:
    weathered(start, 2_000)


def test_linked_histories_are_one_whatever_happens() -> None:
    happened = weathered(0, LINK_SEEDS, LinkScenario)
    assert not {what for what, least in LINKS_AT_LEAST.items() if happened[what] < least}


@pytest.mark.slow
@pytest.mark.parametrize("start", range(LINK_SEEDS, LINK_SEEDS + MORE_LINK_SEEDS, 1_000))
def test_linked_histories_are_one_for_many_times_as_many(start: int) -> None:
    weathered(start, 1_000, LinkScenario)


@pytest.mark.timeout(20)
def test_a_timer_due_this_very_microsecond_fires() -> None:
    """Nothing else moves the fake clock while a loop waits."""
    world, fired = World(0), list[int]()

    def work() -> None:
        loop = SimLoop(world)
        due = loop.create_future()
        loop.call_at(loop.time(), due.set_result, None)
        loop.run_until_complete(due)
        fired.append(world.now_us)
        loop.shut()

    world.spawn(Process("a"), work)
    world.run(lambda: bool(fired), 100)
    assert fired


def test_a_seed_gives_the_same_run_again() -> None:
    """In this process, and in others whose sets have another order."""
    seed = 12
    traces = [Scenario(seed).run().world.trace for _ in range(2)]
    assert traces[0] == traces[1]
    printed = [
        subprocess.run(
            [sys.executable, "-m", "simulator", str(seed)], check=True, capture_output=True,
            cwd=_TESTS.parent,
            env={**os.environ, "PYTHONPATH": str(_TESTS), "PYTHONHASHSEED": str(number)},
        ).stdout.decode()
        for number in (1, 2)
    ]  # fmt: skip
    assert printed[0] == printed[1]
    assert printed[0].startswith("\n".join(traces[0]))


def without(*guards: tuple[str, str]) -> Callable[[str], str]:
    """Return a rewrite of scripts that puts something else in place of each guard."""

    def rewrite(text: str) -> str:
        for guard, instead in guards:
            text = text.replace(guard, instead)
        return text

    return rewrite


EPOCH = ("if epoch ~= argv[1] then", "if false then")
CURSOR = ("if cursor ~= argv[2] then", "if false then")
VERSION = (
    "if argv[at] ~= '' and call('HGET', keys[k], argv[10]) ~= argv[at] then", "if false then"
)  # fmt: skip
ENTRY = ("if #call('XRANGE', keys[1], argv[3], argv[3], 'COUNT', 1) == 0 then", "if false then")
KNOWN = ("elseif known[name] then", "elseif false then")
CLAIMED = ("if held[3] then return held[3] == ARGV[2] and 1 or 0 end", "")
FINISHED = ("if (held[2] or '0-0') ~= ARGV[1] or held[3] ~= ARGV[2] then return 0 end", "")


class SleepyScenario(Scenario):
    """Updaters live, and sleep often while they commit or archive; clients send more.

    An archiver must sleep just before it finishes a span, while another finishes that span and the
    next. Of `Scenario`'s own runs that meets one in thousands, of these about one in a hundred; the
    seeds were sought so that one is among them. Whatever changes the update path's calls shifts it.
    """

    requests = (8, 16)

    def __init__(self, seed: int, rewrite: Callable[[str], str] = lambda text: text) -> None:
        super().__init__(seed, rewrite)
        calm = {"kill_updater": 0.0, "kill_gateway": 0.0, "kill_server": 0.0}
        self.weather = replace(self.weather, pause=0.03, aim=9.0, **calm)


@pytest.mark.parametrize(
    ("guards", "caught_by", "seeds", "kind"),
    [
        pytest.param((EPOCH, CURSOR), ("I3", "I4"), range(50), Scenario, id="fence"),
        pytest.param((EPOCH,), ("I4",), range(50), Scenario, id="epoch"),
        pytest.param((CURSOR,), ("I2", "dead letters"), range(1500), Scenario, id="cursor"),
        pytest.param((ENTRY,), ("I2",), range(150), Scenario, id="last entry still in the log"),
        pytest.param((KNOWN,), ("I1", "I6"), range(10), Scenario, id="dedup"),
        pytest.param((CLAIMED,), ("I1",), range(600), Scenario, id="claim of another archiver"),
        pytest.param(
            (FINISHED,), ("I1", "I5"), range(50, 55), SleepyScenario, id="claim no longer held"
        ),
    ],
)
def test_a_script_without_its_guard_is_caught(
    guards: tuple[tuple[str, str], ...], caught_by: tuple[str, ...], seeds: range,
    kind: type[Scenario],
) -> None:  # fmt: skip
    rewrite, changed = without(*guards), set[str]()

    def watched(text: str) -> str:
        rewritten = rewrite(text)
        if rewritten != text:
            changed.add(text)
        return rewritten

    error = first_failure(seeds, watched, kind)
    assert len(changed) == 1
    assert any(name in error for name in caught_by), error


def test_an_archive_that_does_not_wait_for_the_disk_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A power loss takes entries that the archive has; their clients send them again."""
    assert SETTLE_MS > 2_000  # what a power loss takes under everysec
    monkeypatch.setattr(scenario, "SETTLE_MS", 0)
    assert first_failure(range(300), lambda text: text)[:2] in {"I1", "I2"}


def own_log_alone(
    _: Linking, user: str, fresh: Any, row: LiveState | None, own: Sized, theirs: dict[str, Sized]
) -> int:
    """A row that holds more than its user's own log is taken for one whose history is lost."""
    known = row is None or len(own) >= row.version
    return len(own) + sum(map(len, theirs.values())) if known else 0


@pytest.mark.parametrize(
    ("target", "name", "instead"),
    [
        pytest.param(Linking, "_size", own_log_alone, id="second link"),
        pytest.param(linking, "add_unjoined", lambda *_: None, id="no note"),
    ],
)
def test_linking_without_its_guard_is_caught(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, instead: Any
) -> None:
    monkeypatch.setattr(target, name, instead)
    assert first_failure(range(80), lambda text: text, LinkScenario)[:2] == "I2"


def test_rows_kept_beyond_their_lease_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their versions are compared at the commit: either guard alone is enough."""
    monkeypatch.setattr(KeptRows, "drop", lambda *_: None)
    weathered(0, 12)
    assert first_failure(range(8, 60), without(VERSION))[:2] in {"I2", "I3"}


def first_failure(
    seeds: range, rewrite: Callable[[str], str], kind: type[Scenario] = Scenario
) -> str:
    for seed in seeds:
        try:
            kind(seed, rewrite).run()
        except AssertionError as error:
            return str(error)
    pytest.fail(f"nothing failed in {seeds}")
