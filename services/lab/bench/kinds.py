"""Kinds of `portrait bench`: a name, a word on it, and where it is done.

Belongs here: finding the bench. Not here: measuring. What measures is imported when it is asked
for: most of it takes seconds to load.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from services.runtime.progress import step
from services.runtime.signals import Signals


class Bench(StrEnum):
    """Names of what is measured."""

    service = "service"
    updates = "updates"
    recommend = "recommend"
    api = "api"
    explain = "explain"
    audiences = "audiences"
    campaigns = "campaigns"
    analytics = "analytics"
    soak = "soak"
    lateness = "lateness"
    train = "train"
    materialize = "materialize"
    offline = "offline"
    start = "start"
    erase = "erase"


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says.

    Attributes
    ----------
    model
        Model directory, for ``updates``, ``explain``, ``soak`` and ``lateness``.
    data
        State folder with an archive, for ``updates``, ``lateness``, ``audiences`` and
        ``analytics``; a demo's, for ``api``; a table of
        events as `portrait compare events` takes it, for ``train`` and ``explain``. Only read.
    minutes, plot
        Length of the soak, and the SVG file that it draws.
    items
        For ``train``, size of a made-up catalogue instead: see `training.lab.studies.large`; for
        ``recommend``, a shop of this size beside the small ones.
    drift, peers
        For ``recommend``: many requests in a row; other servers beside. For ``train``, ``peers``
        is another library beside.
    before, only
        For ``api``: another checkout, measured in turns; a part of the endpoints' names.
    events
        For ``erase``: how many come in before.
    """

    model: Path | None = None
    data: Path | None = None
    minutes: float = 20.0
    plot: Path | None = None
    items: int | None = None
    drift: bool = False
    peers: bool = False
    before: Path | None = None
    only: str = ""
    events: int | None = None


def measure(what: Bench, given: Given) -> dict[str, Any]:
    """Start what has to be measured in a folder of its own, measure it, and end it."""
    with Signals():  # SIGTERM too ends servers and folders in order
        return _RUN[what](given)


def _service(given: Given) -> dict[str, Any]:
    del given
    from services.lab.bench.service import measure_service

    return measure_service()


def _updates(given: Given) -> dict[str, Any]:
    from services.lab.bench.updates import measure_updates

    with step("measure updates") as tell:
        return measure_updates(model=given.model, data=given.data, tell=tell)


def _recommend(given: Given) -> dict[str, Any]:
    from services.lab.bench.recommend import SIZES, measure_recommend

    sizes = SIZES if given.items is None else tuple(dict.fromkeys((*SIZES, given.items)))
    with step("measure recommendations") as tell:
        return measure_recommend(tell, sizes=sizes, drift=given.drift, peers=given.peers)


def _api(given: Given) -> dict[str, Any]:
    from services.lab.bench.api import measure_api

    with step("measure endpoints") as tell:
        return measure_api(tell, data=given.data, before=given.before, only=given.only)


def _start(given: Given) -> dict[str, Any]:
    from services.lab.bench.start import measure_start

    with step("measure starts") as tell:
        return measure_start(tell, model=given.model)


def _explain(given: Given) -> dict[str, Any]:
    from services.lab.bench.explain import measure_explain

    with step("measure explanations") as tell:
        return measure_explain(tell, model=given.model, data=given.data)


def _audiences(given: Given) -> dict[str, Any]:
    from services.lab.bench.audiences import measure_audiences

    with step("measure audiences") as tell:
        return measure_audiences(data=given.data, tell=tell)


def _campaigns(given: Given) -> dict[str, Any]:
    del given
    from services.lab.bench.campaigns import measure_campaigns

    with step("measure campaigns") as tell:
        return measure_campaigns(tell)


def _analytics(given: Given) -> dict[str, Any]:
    from services.lab.bench.analytics import measure_analytics

    with step("measure analyses") as tell:
        return measure_analytics(data=given.data, tell=tell)


def _soak(given: Given) -> dict[str, Any]:
    from services.lab.bench.soak import soak

    with step(f"soak for {given.minutes:g} minutes") as tell:
        return soak(minutes=given.minutes, model=given.model, plot=given.plot, tell=tell)


def _lateness(given: Given) -> dict[str, Any]:
    from services.lab.bench.lateness import measure_lateness
    from services.lab.bench.model import archive_of

    with step("measure lateness") as tell, tempfile.TemporaryDirectory() as folder:
        return measure_lateness(archive_of(given.data, Path(folder), tell), tell, given.model)


def _train(given: Given) -> dict[str, Any]:
    from training.lab.comparison.datasets import events
    from training.lab.studies import large, speed

    with step("measure training") as tell:
        if given.items is not None:
            return large.measure(given.items, tell=tell)
        shop = speed.films() if given.data is None else events(given.data)
        return speed.measure(shop, seconds=20.0, workers=2, tell=tell, peers=given.peers)


def _materialize(given: Given) -> dict[str, Any]:
    del given
    from services.lab.bench.materialize import measure_materialize

    with step("measure materialize") as tell:
        return measure_materialize(tell=tell)


def _offline(given: Given) -> dict[str, Any]:
    del given
    from services.lab.bench.offline import measure_offline

    with step("measure the point-in-time join") as tell:
        return measure_offline(tell=tell)


def _erase(given: Given) -> dict[str, Any]:
    from services.lab.bench.erase import EraseLoad, measure_erase

    load = EraseLoad() if given.events is None else EraseLoad(events=given.events)
    with step("measure erasures") as tell:
        return measure_erase(tell, load=load)


_RUN: Final[dict[Bench, Callable[[Given], dict[str, Any]]]] = {
    Bench.service: _service,
    Bench.updates: _updates,
    Bench.recommend: _recommend,
    Bench.api: _api,
    Bench.explain: _explain,
    Bench.audiences: _audiences,
    Bench.campaigns: _campaigns,
    Bench.analytics: _analytics,
    Bench.soak: _soak,
    Bench.lateness: _lateness,
    Bench.train: _train,
    Bench.materialize: _materialize,
    Bench.offline: _offline,
    Bench.start: _start,
    Bench.erase: _erase,
}
