"""The batch work of the command line and the demo: stores up, features, training, evaluation.

Each function brings the stores up, does one thing through the rooms below, and leaves
nothing running that it started.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from feature_repo.archive.event_archive import Archive
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.online.connection import connect, connect_async
from services.models import registry
from services.models.cards import keep_evaluation
from services.models.loaded import version_of
from services.models.promotion import Promotion
from services.models.registry import Aliases
from services.runtime.logs import hush_feast
from services.settings import Settings

MATERIALIZE_WINDOW = timedelta(days=7)
"""How far back `materialize_views` reaches by default, so that late rows arrive."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

METRICS = ("ndcg@10", "recall@10", "hr@10", "mrr")

Tell = Callable[[int, int, str], None]


@contextmanager
def stores(settings: Settings) -> Iterator[str]:
    """Bring up the online store (or join the running one), register features, yield its URL."""
    from feature_repo.feast_stores import store as feast_store
    from services.hosting.embedded import connect

    with connect(settings) as url:
        settings.export(url)
        feast_store.apply()
        hush_feast()
        yield url


def last_event(home: Path) -> datetime:
    """Return the time of the archive's newest event; `NotFoundError` if it is empty."""
    import duckdb

    archive = Archive(home / "archive" / "events")
    if archive.empty():
        raise NotFoundError(
            f"no events below {archive.root}: run `portrait import completejourney` first"
        )
    with duckdb.connect() as connection:
        row = connection.execute(
            "SELECT epoch_ms(max(time)) FROM read_parquet(?)", [archive.glob()]
        ).fetchone()
    assert row is not None
    return datetime.fromtimestamp(row[0] / 1000, UTC)


def train_model(
    settings: Settings,
    *,
    cut_off: datetime | None,
    recipe: str,
    workers: int,
    epochs: int | None,
    seed: int,
    resume: bool,
    is_promoted: bool = False,
    tell: Tell,
) -> tuple[Path, Aliases]:
    """Build the features up to ``cut_off``, train on them; return the model's directory.

    The model becomes the candidate, and production if none is; and the aliases then are returned.

    Parameters
    ----------
    cut_off
        End of what training may see; default: two weeks before the newest event.
    is_promoted
        Make it production, whichever is.
    """
    from training.fit.train import train

    if recipe not in ("fused", "stacked"):
        raise InvalidInputError(f"recipe is {recipe!r}: choose fused or stacked")
    end = cut_off or (last_event(settings.home) - timedelta(days=14)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    with stores(settings) as url:
        build_features(settings.home, end, tell)
        path = train(
            settings.home, cut_off=end, recipe=recipe, workers=workers, epochs=epochs, seed=seed,
            resume=resume, progress=lambda text: tell(0, 0, text), on_epoch=epoch_teller(tell),
        )  # fmt: skip
        return path, publish_model(settings.home, url, path.name, is_promoted=is_promoted)


def publish_model(home: Path, url: str, name: str, *, is_promoted: bool) -> Aliases:
    """Make a model that was trained the candidate, and production if wished or if none is."""

    async def publish() -> Aliases:
        client = connect_async(url)
        try:
            promotion = Promotion(client, home, "portrait train")
            return (await promotion.publish(name, is_promoted=is_promoted))[1]
        finally:
            await client.aclose()

    return asyncio.run(publish())


def build_features(home: Path, until: datetime, tell: Tell) -> dict[str, int]:
    """Compute the feature tables from the archive, telling each step."""
    from feature_repo.features import snapshots

    return snapshots.build(
        home, until=until, progress=lambda what, done, total: tell(done, total, what)
    )


def load_features(start: datetime, end: datetime, tell: Tell) -> dict[str, int]:
    """Load the batch views online, telling view and rows."""
    from feature_repo.feast_stores import store as feast_store

    return feast_store.materialize(
        start, end, progress=lambda view, rows, total: tell(rows, total, f"rows of {view}")
    )


def epoch_teller(tell: Tell) -> Callable[[Mapping[str, Any]], None]:
    """Return a callback for training notes that tells batches, and says each epoch."""

    def note(record: Mapping[str, Any]) -> None:
        if "done" in record:
            tell(0, 0, f"epoch {record['epoch']}, validation NDCG@10 "
                 f"{record['validation_ndcg@10']:.4f}")  # fmt: skip
        else:
            tell(record["batch"], record["batches"], f"batches, epoch {record['epoch']}")

    return note


def evaluate_model(
    settings: Settings, *, since: datetime, until: datetime | None, tell: Tell
) -> dict[str, Any]:
    """Rank every basket in ``[since, until)`` with the model and its baselines."""
    from training.evaluation.evaluate import evaluate

    with stores(settings) as url:
        path = find_model(settings, url)
        result = evaluate(
            settings.home, path, since=since,
            until=until or last_event(settings.home) + timedelta(milliseconds=1), progress=tell,
        )  # fmt: skip
    keep_evaluation(settings.home, version_of(path) or path.name, result)
    return result


def find_model(settings: Settings, url: str) -> Path:
    """Return the directory of the set model, else of the candidate, else of production.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    with closing(connect(url)) as client:
        aliases = registry.adopt(client, settings.home)
    chosen = registry.path_of(settings.home, aliases.candidate)
    found = settings.model or chosen or registry.path_of(settings.home, aliases.production)
    if found is None:
        raise NotFoundError(
            f"no model below {settings.home / 'models'}: run `portrait train` first"
        )
    return found


def materialize_views(
    settings: Settings, *, since: datetime | None, until: datetime | None, tell: Tell
) -> dict[str, int]:
    """Bring the snapshots up to ``until`` and load the batch views online."""
    from feature_repo.feast_stores import store as feast_store

    end = until or datetime.now(UTC)
    with stores(settings):
        build_features(settings.home, end, tell)
        # A store that has never been loaded needs every user's newest row, however old.
        recent = end - MATERIALIZE_WINDOW if feast_store.loaded_before() else BEGINNING
        return load_features(since or recent, end, tell)


def metrics_table(result: Mapping[str, Any]) -> Table:
    """Return the next-basket metrics as a table, one row a model."""
    table = Table("model", *METRICS, title="next basket, full ranking", title_justify="left")
    for name, metrics in result["next_basket"].items():
        if isinstance(metrics, Mapping) and METRICS[0] in metrics:
            table.add_row(name, *(f"{metrics[m]:.4f}" for m in METRICS))
    return table
