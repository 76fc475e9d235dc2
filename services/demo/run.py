"""The whole loop on a year of real shopping, from raw rows to a report.

Finished steps are remembered below the demo's own state folder, so a run that was stopped
goes on where it was; the online store always starts empty and is filled again.
"""

import gc
import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from services.client import Client
from services.demo import report
from services.demo.findings import describe_user, figures, show_summary
from services.demo.replay import parity, replay, with_held_out
from services.hosting.embedded import free_port
from services.runtime.progress import ProgressStep, console, step
from services.settings import Settings

CUT_OFF = datetime(2017, 12, 18, tzinfo=UTC)
"""Two weeks before the data ends: what comes after is posted to the live service."""

END = datetime(2018, 1, 2, tzinfo=UTC)
LATENCY_REQUESTS = 300
WORKERS = 2
EPOCHS = 12


class StepResults:
    """Results of finished steps, one JSON file each; a step with a file is not repeated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def once(
        self, name: str, title: str, work: Callable[[ProgressStep], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the remembered result of ``name``, or do ``work`` and remember it."""
        path = self._folder / f"{name}.json"
        if path.exists():
            console.print(f"   kept {title} (done by an earlier run; --fresh repeats it)")
            kept: dict[str, Any] = orjson.loads(path.read_bytes())
            return kept
        started_s = time.monotonic()
        with step(title) as tell:
            result = work(tell)
        result["seconds"] = round(time.monotonic() - started_s, 2)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))
        temporary.replace(path)
        gc.collect()
        return result


def run(settings: Settings, *, out: Path, keep_serving: bool, fresh: bool) -> None:
    """Run the demo and write its report.

    Parameters
    ----------
    settings
        The demo keeps its state in ``settings.home / "demo"``, apart from everything else.
    out
        Folder of ``report.html`` and ``report.json``.
    keep_serving
        Leave the service up until Ctrl-C.
    fresh
        Forget finished steps.
    """
    started_s = time.monotonic()
    home = (settings.home / "demo").resolve()
    if fresh:
        shutil.rmtree(home, ignore_errors=True)
    _forget_live(home)
    # The demo's data is its own: never in the Redis that a setting names for real use.
    settings = settings.model_copy(update={"home": home, "redis_url": None, "replay_clock": True})
    memory = StepResults(home / "steps")
    from services.hosting.workflow import stores

    imported = memory.once("import", "import a year of real purchases", _import(home))
    with stores(settings) as url:
        offline = _offline(settings, url, memory)
        live, pictures = _live(settings)
    found = figures(imported, offline, live, CUT_OFF, time.monotonic() - started_s)
    pictures |= {
        "history": offline["train"]["history"],
        "shopper": describe_user(home, live["shopper"]),
    }
    page, data = report.write(out, found, pictures)
    show_summary(found, pictures["worked_example"], page, data)
    if keep_serving:
        from services.hosting.serve import serve_forever

        serve_forever(settings)


def _forget_live(home: Path) -> None:
    """Remove what an earlier replay left: the store, and the parts that came from its log."""
    shutil.rmtree(home / "store", ignore_errors=True)
    for part in (home / "archive" / "events").glob("p[0-9][0-9][0-9]-*.parquet"):
        part.unlink()


def _import(home: Path) -> Callable[[ProgressStep], dict[str, Any]]:
    def work(tell: ProgressStep) -> dict[str, Any]:
        from feature_repo import importers

        result = importers.run(
            "completejourney", home=home, path=None, mapping=None, until=CUT_OFF,
            rest=home / "replay.ndjson", progress=tell,
        )  # fmt: skip
        tell.note = f"{result.rows_in:,} rows, {result.accepted:,} accepted"
        return result.as_dict()

    return work


def _offline(settings: Settings, url: str, memory: StepResults) -> dict[str, dict[str, Any]]:
    from services.hosting.workflow import (
        build_features,
        epoch_teller,
        load_features,
        publish_model,
    )
    from services.models.cards import keep_evaluation
    from services.models.loaded import version_of
    from training.fit.train import train
    from training.history import dataset

    home = settings.home

    def make_features(tell: ProgressStep) -> dict[str, Any]:
        return dict(build_features(home, CUT_OFF, tell))

    def join(tell: ProgressStep) -> dict[str, Any]:
        rows = dataset.build(home, as_of=CUT_OFF, out=home / "training_set.parquet", progress=tell)
        tell.note = f"{rows:,} point-in-time rows"
        return {"rows": rows}

    def fit(tell: ProgressStep) -> dict[str, Any]:
        model = train(
            home, cut_off=CUT_OFF, recipe="fused", workers=WORKERS, epochs=EPOCHS, resume=True,
            progress=lambda text: tell(0, 0, text), on_epoch=epoch_teller(tell),
        )  # fmt: skip
        manifest = json.loads((model / "manifest.json").read_text())
        return {"model": str(model), "history": manifest["metrics"]["epochs"]}

    def judge(tell: ProgressStep) -> dict[str, Any]:
        from training.evaluation.evaluate import evaluate

        histories = with_held_out(home, CUT_OFF)
        model = Path(trained["model"])
        found = dict(
            evaluate(home, model, since=CUT_OFF, until=END, histories=histories, progress=tell)
        )
        keep_evaluation(home, version_of(model) or model.name, found)
        return found

    def load(tell: ProgressStep) -> dict[str, Any]:
        from services.rebuild.run import rebuild

        publish_model(home, url, Path(trained["model"]).name, is_promoted=True)
        rows = load_features(CUT_OFF.replace(month=1, day=1), CUT_OFF, tell)
        return {"rows": rows, "profiles": rebuild(settings, users=None, progress=tell)}

    built = memory.once("features", "feature snapshots as of every day", make_features)
    joined = memory.once("dataset", "point-in-time training set", join)
    trained = memory.once("train", f"train the encoder, {WORKERS} Ray Train workers", fit)
    judged = memory.once("evaluate", "evaluate against the baselines", judge)
    with step("materialize features and profiles into the online store") as tell:
        loaded = load(tell) | {"seconds": round(tell.seconds, 2)}
    return {
        "features": built, "dataset": joined, "train": trained, "evaluate": judged,
        "materialize": loaded,
    }  # fmt: skip


def _live(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    from services.demo.latency import latencies_ms
    from services.hosting.serve import running

    settings = settings.model_copy(update={"port": free_port()})
    with ExitStack() as service:
        with step("start the service"):
            client = service.enter_context(running(settings))
        with step("replay the last 14 days over HTTP") as tell:
            replayed, applied, busiest = replay(settings.home, client, tell)
        with step("compare live profiles with an offline fold") as tell:
            compared = parity(settings, CUT_OFF, tell)
        with step("measure latency") as tell:
            series = latencies_ms(client, LATENCY_REQUESTS, tell)
        example = _worked_example(client)
        shown = client.recommendations(busiest, n=10, explain=True)["items"]
        titled = [item | {"title": client.item(item["item_id"])["title"]} for item in shown]
    live = {"replay": replayed, "parity": compared, "shopper": busiest, "series_ms": series}
    pictures = {
        "latency_ms": series, "applied": applied, "recommendations": titled,
        "worked_example": example,
    }  # fmt: skip
    return live, pictures


def _worked_example(client: Client) -> str:
    """Return the two events and the profile they make, as anyone can repeat with curl."""
    user = {"user_id": "123"}
    client.post_event(user | {"type": "view_item", "items": [{"item_id": "A"}]})
    receipt = client.post_event(
        user | {"type": "purchase", "order_id": "1", "items": [{"item_id": "B"}]}
    )["receipt"]
    profile = client.profile("123", view="seed", after=receipt)
    return (
        f"$ curl -s '{client.base_url}/v1/users/123/profile?view=seed' "
        f'-H "Authorization: Bearer $PORTRAIT_API_KEY"\n{orjson.dumps(profile).decode()}'
    )
