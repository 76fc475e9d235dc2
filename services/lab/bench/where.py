"""Profile of an applied event's CPU time: by process, and by part within ours.

CPU seconds come from the kernel, the parts from py-spy's samples of the two replicas while
they work: nothing is instrumented, so nothing that is measured changes. Belongs here:
sampling and naming the parts. Not here: the load.
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

SAMPLES_PER_S: Final = 250
_LONGEST_S: Final = 120
_STOP_S: Final = 20

PARTS: Final = {
    "Gateway": (
        ("pseudonym", r"feature_repo/events/pseudonyms"),
        ("encode event", r"^(?:EventRecord\.)?encode \(feature_repo/events/"),
        ("append", r"services/event_log/(?!receipt)"),
        ("read body", r"services/http/(?:body|limits)"),
        ("validate", r"services/(?:gateway/ingest|catalogue)|feature_repo/events|pydantic/"),
    ),
    "Updater": (
        ("archive", r"services/event_log/archiver|feature_repo/archive"),
        ("model step", r"training/"),
        ("profile bytes", r"(?:encode|decode) \(feature_repo/user_profile"),
        ("decode event", r"feature_repo/events|services/event_log/batch"),
        ("read rows", r"read_\w+ \(feature_repo/online"),
        ("commit", r"feature_repo/online"),
        ("profile fold", r"feature_repo/user_profile"),
        ("transition", r"services/models/transition"),
        ("counts", r"services/(?:catalogue/popularity|update/counters)"),
        ("read log", r"_round \(services/update/updater|services/event_log/"),
    ),
}
"""Parts of each replica: the first pattern that any frame of a sample matches names its part."""

REST: Final = {"Gateway": "HTTP and Serve", "Updater": "rest"}
_IDLE: Final = re.compile(
    r"^(?:Worker\.main_loop|Thread\.run|Condition\.wait|Event\.wait|_worker|\w+Selector\.select) \("
)
"""Innermost frames of threads that wait, which py-spy takes for working now and then."""
_PYTHON: Final = frozenset({"Gateway", "Updater"})


def processes() -> dict[str, list[psutil.Process]]:
    """Return the service's processes below this one, by what they are."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.setdefault(_role_of(" ".join(process.cmdline()), process.name()), []).append(
                process
            )
    return found


def _role_of(line: str, name: str) -> str:
    for role in _PYTHON:
        if f"ServeReplica:portrait:{role}" in line:
            return role
    if name in {"valkey-server", "redis-server", "haproxy"}:
        return {"haproxy": "HAProxy"}.get(name, "store")
    return "Ray and supervisor"


def cpu_s(found: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Return CPU seconds used so far, by what a process is."""
    used = dict.fromkeys(found, 0.0)
    for role, members in found.items():
        for process in members:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[role] += times.user + times.system
    return used


@contextmanager
def sample_times(folder: Path) -> Iterator[dict[str, Counter[str]]]:
    """Sample gateway and updater while the block runs; the yielded counters are filled after it.

    Empty where py-spy is missing or may not look into other processes.
    """
    counts: dict[str, Counter[str]] = {}
    command, runs = _py_spy(), list[tuple[str, Path, subprocess.Popen[bytes]]]()
    try:
        for role, members in processes().items() if command else ():
            for process in members if role in _PYTHON else ():
                out = folder / f"{role}-{process.pid}.txt"
                runs.append((role, out, _start(str(command), process.pid, out)))
        yield counts
    finally:
        for _, _, run in runs:
            run.send_signal(2)  # it writes what it has
        for role, out, run in runs:
            try:
                run.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
            if out.exists():
                counts.setdefault(role, Counter()).update(parts(role, out.read_text().splitlines()))


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _start(command: str, pid: int, out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            command, "record", "--pid", str(pid), "--format", "raw", "--output", str(out),
            "--rate", str(SAMPLES_PER_S), "--duration", str(_LONGEST_S),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def parts(role: str, lines: Iterable[str]) -> Counter[str]:
    """Count samples by part; lines are py-spy's ``frame;frame;… count``, outermost first.

    Examples
    --------
    >>> parts("Updater", ["run (services/update/updater.py:70);step (training/fit/loop.py:65) 3"])
    Counter({'model step': 3})
    """
    rules = [(name, re.compile(pattern)) for name, pattern in PARTS[role]]
    counted = Counter[str]()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not _IDLE.search(frames[-1]):
            counted[_part(frames, rules) or REST[role]] += int(count)
    return counted


def _part(frames: list[str], rules: list[tuple[str, re.Pattern[str]]]) -> str | None:
    for name, pattern in rules:
        if any(map(pattern.search, frames)):
            return name
    return None


def shares(
    used_s: dict[str, float], counts: dict[str, Counter[str]], events: int
) -> dict[str, Any]:
    """Return ``cpu_us_per_event`` by process and ``share`` by part, of all CPU time.

    Examples
    --------
    >>> shares({"store": 1.0, "Updater": 3.0}, {"Updater": Counter({"fold": 2, "rest": 1})}, 1000)
    {'cpu_us_per_event': {'Updater': 3000.0, 'store': 1000.0}, 'share': {'Updater: fold': 0.5, \
'Updater: rest': 0.25, 'store': 0.25}}
    """
    whole = sum(used_s.values()) or 1.0
    share = dict[str, float]()
    for role, used in used_s.items():
        samples = counts.get(role)
        if not samples:
            share[role] = used / whole
            continue
        for name, count in samples.items():
            share[f"{role}: {name}"] = used / whole * count / samples.total()
    return {
        "cpu_us_per_event": {
            role: round(used * 1e6 / events, 1) for role, used in _largest_first(used_s)
        },
        "share": {name: round(value, 3) for name, value in _largest_first(share)},
    }


def _largest_first(values: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
