"""The Feast store as the rest of Portrait uses it: open, apply, materialize, read a user.

Needs PORTRAIT_HOME and PORTRAIT_REDIS_URL in the environment (``Settings.export`` sets
them), because ``feature_store.yaml`` names them.
"""

import contextlib
import importlib
import io
import logging
import os
import runpy
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from feature_repo.errors import InvalidSettingError, NotFoundError
from feature_repo.features.catalogue import BATCH_VIEWS

FOLDER: Final = Path(__file__).parents[1]
OVERLAP_DAYS: Final = 8
"""How far each materialize reaches back: a weekly row and the 72 h in which events come late."""

Progress = Callable[[str, int, int], None]
"""Called with a view's name, the rows loaded so far and those there are (0: not known yet)."""


def open_store() -> Any:
    """Return Feast's store; `InvalidSettingError` if one of the two variables is not set."""
    missing = [n for n in ("PORTRAIT_HOME", "PORTRAIT_REDIS_URL") if not os.environ.get(n)]
    if missing:
        raise InvalidSettingError(
            f"{' and '.join(missing)} not set: run `portrait env` and export what it prints"
        )
    _import_feast()
    from feast import FeatureStore

    with quiet():
        store = FeatureStore(repo_path=str(FOLDER))
        # Read now: Feast parses it late, and would then log advice that does not apply here.
        _ = store.config.registry
        return store


def _import_feast() -> None:
    """Import Feast without the checks that typeguard builds into its classes.

    They take a third of the time of the import; what we pass to Feast is checked by mypy.
    """
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = _unchecked
    try:
        importlib.import_module("feast")
    finally:
        typeguard.typechecked = checked


def _unchecked(target: Any = None, **_options: Any) -> Any:
    return _unchecked if target is None else target


def apply() -> None:
    """Bring the registry in line with ``definitions.py``, as ``feast apply`` does."""
    from feast import Entity, FeatureService, FeatureView, Project
    from feast.repo_contents import RepoContents
    from feast.repo_operations import extract_objects_for_apply_delete

    store = open_store()
    # Run afresh: the sources' paths follow PORTRAIT_HOME as it is now.
    found = list(runpy.run_path(str(FOLDER / "definitions.py")).values())
    views = [o for o in found if isinstance(o, FeatureView)]
    repo = RepoContents(
        projects=[o for o in found if isinstance(o, Project)],
        data_sources=[view.batch_source for view in views],
        entities=[o for o in found if isinstance(o, Entity)],
        feature_views=views,
        feature_services=[o for o in found if isinstance(o, FeatureService)],
        on_demand_feature_views=[],
        stream_feature_views=[],
        label_views=[],
        permissions=[],
    )
    with quiet():
        changed, gone, _, _ = extract_objects_for_apply_delete(store.project, store.registry, repo)
        store.apply(changed, objects_to_delete=gone, partial=False)


def materialize(
    start: datetime,
    end: datetime,
    progress: Progress | None = None,
    views: Sequence[str] = BATCH_VIEWS,
) -> dict[str, int]:
    """Load the batch views' newest rows of a span of time into the online store.

    The span is begun `OVERLAP_DAYS` earlier than asked, so that rows which changed because
    events came late are loaded again; a row of equal time replaces what is there.

    Parameters
    ----------
    start, end
        Span of snapshot times, both included.
    progress
        Told the view, its rows so far and in all, after every written batch.
    views
        Names of batch views; the live view cannot be loaded.

    Returns
    -------
    dict[str, int]
        Rows loaded, by view.

    Raises
    ------
    NotFoundError
        If a name in ``views`` is no batch view.
    StoreUnavailableError
        If the online store does not answer.
    """
    unknown = sorted(set(views) - set(BATCH_VIEWS))
    if unknown:
        raise NotFoundError(f"{unknown[0]} is no batch view: choose from {', '.join(BATCH_VIEWS)}")
    from feature_repo.feast_stores.online import rows_written

    store, counts = open_store(), dict.fromkeys(views, 0)
    span = _utc(start) - timedelta(days=OVERLAP_DAYS), _utc(end)
    try:
        for view in views:

            def count(rows: int, total: int, view: str = view) -> None:
                counts[view] += rows
                if progress is not None:
                    progress(view, counts[view], total)

            count(0, 0)
            token = rows_written.set(count)
            try:
                with quiet():
                    store.materialize(*span, feature_views=[view])
            finally:
                rows_written.reset(token)
    finally:
        close_offline()
    return counts


def loaded_before() -> bool:
    """Say whether every batch view has been materialized at least once, by the registry."""
    store = open_store()
    return all(store.get_feature_view(name).materialization_intervals for name in BATCH_VIEWS)


def read_user(store: Any, pseudonym: str, service: str = "profile_v1") -> dict[str, Any]:
    """Return a user's features of a feature service; values are None where there is no row.

    Parameters
    ----------
    service
        Feature service with user features only.

    Raises
    ------
    StoreUnavailableError
        If the online store does not answer in time.
    """
    answer = store.get_online_features(
        features=_service(store, service), entity_rows=[{"user": pseudonym}]
    ).to_dict()
    return {name: values[0] for name, values in answer.items()}


async def read_user_async(
    store: Any, pseudonym: str, service: str = "profile_v1"
) -> dict[str, Any]:
    """Do what `read_user` does, without blocking the event loop."""
    answer = await store.get_online_features_async(
        features=_service(store, service), entity_rows=[{"user": pseudonym}]
    )
    return {name: values[0] for name, values in answer.to_dict().items()}


def _service(store: Any, name: str) -> Any:
    # Kept on the store: looking a service up parses it from the registry every time.
    kept: dict[str, Any] = store.__dict__.setdefault("_portrait_services", {})
    if name not in kept:
        kept[name] = store.get_feature_service(name)
    return kept[name]


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's prints, bars, advisory logs and warnings away; errors still raise."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def close_offline() -> None:
    """Close the connection that Feast's offline store keeps for the whole process.

    Left open, it makes DuckDB's bindings complain about leaks when the process ends.
    """
    import gc

    import ibis

    backend = ibis.options.default_backend
    if backend is not None:
        ibis.options.default_backend = None
        backend.disconnect()
        del backend
        gc.collect()
