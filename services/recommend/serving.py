"""The models a gateway serves with: production, and those that rows were made by.

A row is scored by the model that made it, so a new model takes nobody's recommendations away
while a rebuild folds the rows anew. Models are loaded in the background and taken up in one
step: an answer is made by one model or another, never by half of each. Belongs here: which
model, and when. Not here: loading one (`models`), scoring (`recommend`).
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import redis
import structlog

from feature_repo.errors import ModelMismatchError, StoreUnavailableError
from feature_repo.online.live_row import LiveState
from services.catalogue import popularity
from services.catalogue.catalogue import Catalogue
from services.models import registry
from services.models.loaded import choose, load, load_version, version_of
from services.models.registry import Aliases
from services.recommend.recommender import Recommender
from services.runtime.tasks import end
from services.settings import Settings

LOOK_EVERY_S: Final = 0.5
"""How often the aliases are looked at."""
RETRY_S: Final = 5.0
"""How often what could not be loaded is tried again."""
POPULAR_EVERY_S: Final = 2.0
COUNTS_EVERY_S: Final = 20.0
"""How often every item's counts are read, which a model's live popularity needs."""
COUNTS_CHUNK: Final = 1000
"""Items asked for at once: an answer of a millisecond or two."""
POPULAR_POOL: Final = 2000
"""Items whose popularity and trend a gateway knows."""
_POPULAR_DEPTH: Final = 20_000
MAX_MODELS: Final = 3
"""Models kept: production, and those most lately asked for."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Serving:
    """A model and what is made of it; without a model, the recommender alone.

    Attributes
    ----------
    recommender
        Ranks by this model.
    model, scorer, transition
        As `training.network.model_dir` and `training.scoring` make them.
    """

    recommender: Recommender
    model: Any = None
    scorer: Any = None
    transition: Any = None

    @property
    def version(self) -> str:
        """Version of the model; empty without one."""
        return "" if self.model is None else str(self.model.version)


def serving(catalogue: Catalogue, model: Any) -> Serving:
    """Return a model ready to serve; takes a second or two."""
    if model is None:
        return Serving(Recommender(catalogue))
    from training.scoring.related_items import related
    from training.scoring.scorer import Scorer
    from training.scoring.transition import LearnedTransition

    scorer = Scorer(model)
    recommender = Recommender(
        catalogue, scorer, model.vocabulary.items, model.version, partial(related, model)
    )
    recommender.warm()
    return Serving(recommender, model, scorer, LearnedTransition(model))


class ServedModels:
    """The models in service, kept up with the aliases and with the rows.

    Attributes
    ----------
    newest
        The production model: what new users and sessions are served by.
    aliases
        As they were looked at last.
    refused
        Whether the chosen model could not be loaded.
    refusals
        Why models could not be loaded, by version.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, store: Any) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._served: dict[str, Serving] = {}
        self._wanted = asyncio.Queue[str]()
        self._gone = set[str]()
        self._retry_s = 0.0
        self._failed: str | None = None  # production that could not be loaded: tried again later
        self._popular: tuple[Sequence[Any], Sequence[Any]] = ((), ())
        self._task: asyncio.Task[None] | None = None
        self.newest = Serving(Recommender(catalogue))
        self.aliases = Aliases()
        self.refused = False
        self.refusals = dict[str, str]()

    async def load(self) -> None:
        """Load the production model, before anything is served; without the store, none.

        Raises
        ------
        ModelMismatchError
            If the settings name a model that does not fit.
        """
        try:
            self.aliases = await registry.adopt_async(self._store, self._settings.home)
        except StoreUnavailableError as error:
            _log.warning("aliases_unread", error=str(error))
        path = choose(self._settings, self.aliases)
        try:
            model = None if path is None else load(path)
        except ModelMismatchError as error:
            if path is None or self._settings.model is not None:
                raise
            _log.error("model_refused", path=str(path), reason=str(error))
            self.refused, model = True, None
            self.refusals[version_of(path) or path.name] = str(error)
        self._take(serving(self._catalogue, model))

    def start(self) -> None:
        """Begin to follow the aliases."""
        self._task = asyncio.create_task(self._follow())

    @property
    def ask_features(self) -> bool:
        """Whether one of the models reads user features."""
        return any(
            each.model is not None and each.model.user_features.names
            for each in self._served.values()
        )

    @property
    def restored(self) -> str | None:
        """Version of the production model, if a rollback made it that and it is loaded."""
        production = self.aliases.production
        if production is None or not self.aliases.is_rollback:
            return None
        return production.version if production.version == self.newest.version else None

    async def stop(self) -> None:
        """Stop following."""
        await end(self._task)

    def of(self, version: str) -> Serving | None:
        """Return what serves rows of a model; None if it is not loaded, which is then tried."""
        found = self._served.get(version)
        if found is None:
            if version not in self._gone:
                self._gone.add(version)
                self._wanted.put_nowait(version)
        elif len(self._served) > 1:
            self._served[version] = self._served.pop(version)  # most lately asked for
        return found

    def find_serving(self, row: LiveState | None) -> tuple[Serving, bytes | None]:
        """Return what serves a row, and the row's encoder state if that made it.

        A row of a model that is not loaded is served by the newest, without a state.
        """
        found = None if row is None or not row.model else self.of(row.model)
        if row is None or found is None or found.model is None:
            return self.newest, None
        return found, row.learned or None

    def set_popular(
        self, popular: Sequence[tuple[str, float]], trending: Sequence[tuple[str, float]]
    ) -> None:
        """Take up new popularity and trend for every model."""
        self._popular = popular, trending
        for each in {id(s): s for s in (self.newest, *self._served.values())}.values():
            each.recommender.set_popular(popular, trending)

    def list_readers(self) -> list[Serving]:
        """Return the models whose scores move with what sells just now."""
        return [each for each in self._served.values() if each.scorer and each.scorer.reads_counts]

    def _take(self, new: Serving, *, newest: bool = True) -> None:
        """Put a model into service, in one step of the event loop."""
        new.recommender.set_popular(*self._popular)
        self._served[new.version] = new
        if newest:
            self.newest = new
        for version in list(self._served):
            if len(self._served) > MAX_MODELS and version != self.newest.version:
                del self._served[version]

    async def _follow(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            try:
                version = await asyncio.wait_for(self._wanted.get(), LOOK_EVERY_S)
            except TimeoutError:
                version = None
            try:
                if version is not None:
                    await self._fetch(version)
                    continue
                if now_s() >= self._retry_s:
                    self._retry_s = now_s() + RETRY_S
                    self._gone.clear()  # what was not there may be by now
                    self._failed = None
                await self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look goes on
                _log.error("aliases_not_followed", error=type(error).__name__, reason=str(error))

    async def _look(self) -> None:
        """Take up the production model if it is another than the one before."""
        try:
            self.aliases = await registry.read_async(self._store)
        except StoreUnavailableError:
            return
        production = self.aliases.production
        if production is None or self._settings.model is not None:
            return
        version = production.version
        if version == self.newest.version:
            self.refused = False
        elif version != self._failed:
            await self._bring(version, newest=True)
            self.refused = version != self.newest.version
            self._failed = version if self.refused else None

    async def _fetch(self, version: str) -> None:
        if version not in self._served:
            await self._bring(version, newest=False)

    async def _bring(self, version: str, *, newest: bool) -> None:
        known = self._served.get(version)
        if known is None:
            try:
                known = await asyncio.to_thread(self._load_version, version)
            except ModelMismatchError as error:
                if self.refusals.get(version) != str(error):
                    _log.error("model_refused", version=version, reason=str(error))
                self.refusals[version] = str(error)
            except Exception as error:  # noqa: BLE001 - whatever is on disk, the service goes on
                _log.error("model_unread", version=version, error=type(error).__name__)
        if known is not None:
            self.refusals.pop(version, None)
            self._take(known, newest=newest)
            _log.info("model_taken_up", version=version, newest=newest)

    def _load_version(self, version: str) -> Serving | None:
        model = load_version(self._settings, version)
        return None if model is None else serving(self._catalogue, model)


class PopularFollower:
    """Brings what sells lately from the store to the models, every `POPULAR_EVERY_S`."""

    def __init__(self, store: Any, catalogue: Catalogue, models: ServedModels) -> None:
        self._store = store
        self._catalogue = catalogue
        self._models = models
        self._counts_due_s = dict[str, float]()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following."""
        await end(self._task)

    async def _follow(self) -> None:
        while True:
            try:
                popular, trending = [
                    await popular_offered(self._store, key, self._catalogue.entries)
                    for key in (popularity.KEY, popularity.TREND_KEY)
                ]
                self._models.set_popular(popular, trending)
                await self._follow_counts()
            except (redis.RedisError, OSError) as error:
                _log.warning("popularity_unread", error=type(error).__name__)
            await asyncio.sleep(POPULAR_EVERY_S)

    async def _follow_counts(self) -> None:
        """Give every model that reads them the counts of its items, when they are due."""
        readers = {each.version: each for each in self._models.list_readers()}
        now_s = asyncio.get_running_loop().time()
        due_s = {version: self._counts_due_s.get(version, 0.0) for version in readers}
        for version, reader in readers.items():
            if due_s[version] <= now_s:
                counts = await count_users(self._store, reader.model.vocabulary.items)
                await asyncio.to_thread(reader.scorer.take_counts, counts)
                due_s[version] = now_s + COUNTS_EVERY_S
        self._counts_due_s = due_s


async def count_users(client: Any, items: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return how many users items had lately and just now, in any scale, shape (2, N)."""
    out = np.zeros((2, len(items)))
    for row, key in zip(out, (popularity.KEY, popularity.TREND_KEY), strict=True):
        for start in range(0, len(items), COUNTS_CHUNK):
            found = await client.zmscore(key, list(items[start : start + COUNTS_CHUNK]))
            row[start : start + len(found)] = [score or 0.0 for score in found]
    return out


async def popular_offered(
    client: Any, key: str, listed: Collection[str]
) -> list[tuple[str, float]]:
    """Return the best of a set, `POPULAR_POOL` at most; only ``listed`` ones where there are any.

    Looks no further than `_POPULAR_DEPTH`: made-up items may stand before all others.
    """
    found = list[tuple[str, float]]()
    for start in range(0, _POPULAR_DEPTH, POPULAR_POOL):
        page = await client.zrevrange(key, start, start + POPULAR_POOL - 1, withscores=True)
        pairs = [(item.decode(), score) for item, score in page]
        found += [pair for pair in pairs if not listed or pair[0] in listed]
        if len(page) < POPULAR_POOL or len(found) >= POPULAR_POOL:
            break
    return found[:POPULAR_POOL]
