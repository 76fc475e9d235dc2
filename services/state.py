"""What a gateway replica holds between requests, and how it comes up and goes down."""

import asyncio
import time
from collections.abc import Awaitable, Collection
from pathlib import Path
from typing import Any, Final, TypeVar

import redis
import structlog

from feature_repo import explicit, zones
from feature_repo.connection import connect_async, translated
from feature_repo.entity import Tenant, partition_of
from feature_repo.errors import InvalidInputError, StoreUnavailableError
from feature_repo.live_row import FIELDS, LiveState, parse_live, row_key
from feature_repo.query_bounds import sweep
from services import popularity
from services.analytics.cube import AnalyticsCube
from services.applied import Applied
from services.audiences.definitions import Definitions
from services.audiences.index import AudienceIndex
from services.campaigns.definitions import Campaigns
from services.campaigns.eligibility import Eligibility
from services.campaigns.ledger import Ledger
from services.catalogue import CHANGED, Catalogue
from services.clock import ServiceClock
from services.currency import ShopCurrency
from services.health import Probe
from services.http.api_keys import KeyRing
from services.http.problems import ProblemError
from services.http.rate_limits import RateLimits
from services.links import first_owner_of, owner_of
from services.log.append import Appender
from services.log.keys import owners_key
from services.log.receipt import Receipt
from services.recommend import rule_book
from services.recommend.impressions import Counted, Impressions
from services.recommend.recommender import Recommender
from services.serving import ServedModels, Serving
from services.settings import Settings
from services.tasks import end
from services.user_features import UserFeatures

_POPULAR_EVERY_S: Final = 2.0
POPULAR_POOL: Final = 2000
"""Items whose popularity and trend a gateway knows."""
_POPULAR_DEPTH: Final = 20_000

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class GatewayState:
    """Clients, caches and the model of one gateway replica.

    Parameters
    ----------
    settings
        The service's settings.
    url
        URL of the store.
    admin_digest
        See `services.http.api_keys.KeyRing`.
    drain_file
        While this file exists, the service is about to end; None outside ``portrait serve``.
    impressions
        Counts what was shown; see `services.recommend.impressions`.

    Raises
    ------
    InvalidSettingError
        If the file of rules is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        admin_digest: str | None,
        drain_file: Path | None = None,
        *,
        impressions: Counted,
    ) -> None:
        self.settings = settings
        self.rules = rule_book.load(settings.rules)
        self._url = url
        self._drain_file = drain_file
        self.tenant = Tenant.load(settings.home, settings.partitions)
        self.clock = ServiceClock(replay=settings.replay_clock)
        self.store: Any = connect_async(url)
        self.keys = KeyRing(self.store, admin_digest)
        self.rates = RateLimits(self.store, settings.rate_limit_per_min)
        self.catalogue = Catalogue(self.store)
        self.currency = ShopCurrency(settings, self.store)
        self.appender = Appender(
            self.store, lag_limit=settings.lag_limit, wait_replicas=settings.wait_replicas
        )
        self.impressions = Impressions(self.appender, impressions)
        self.applied = Applied(
            self.store,
            connect_async(url, timeout_s=15.0),
            self.tenant.partitions,
            {CHANGED: self.catalogue.announce},
        )
        self.probe = Probe(self.store, self.tenant.partitions)
        self.features = UserFeatures()
        self.audiences = Definitions(self.store, self.tenant)
        self.audience_index = AudienceIndex(settings.home)
        self.eligibility = Eligibility(self.audiences, self.audience_index)
        self.campaigns = Campaigns(self.store)
        self.ledger = Ledger(self.store)
        self.analytics = AnalyticsCube(self.audience_index)
        self.models = ServedModels(settings, self.catalogue)
        self.started_s = time.monotonic()
        self._popular_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the model and the catalogue, open Feast, begin to listen."""
        sweep(self.settings.home)
        self.settings.export(self._url)
        self.models.load()
        self.features.open()
        await asyncio.to_thread(zones.known)  # no event waits for it
        await self.catalogue.start()
        self.recommender.warm()
        self.models.start()
        self.applied.start()
        self.impressions.start()
        self._popular_task = asyncio.create_task(self._follow_popular())

    async def stop(self) -> None:
        """Close what `start` opened."""
        await self.impressions.stop()
        await end(self._popular_task)
        await self.models.stop()
        await self.applied.stop()
        await self.analytics.stop()
        await self.audience_index.stop()
        await self.catalogue.stop()
        await self.store.aclose()

    async def bounded(self, work: Awaitable[_T], more_s: float = 0.0) -> _T:
        """Await a call to the store for ``settings.store_bound_s`` and ``more_s``, no longer.

        Raises
        ------
        StoreUnavailableError
            If it fails or takes too long.
        """
        try:
            with translated():
                async with asyncio.timeout(self.settings.store_bound_s + more_s):
                    return await work
        except TimeoutError:
            raise StoreUnavailableError("the online store does not answer: retry") from None

    async def reached(self, receipt: Receipt, partitions: set[int]) -> None:
        """Return once ``receipt`` is applied in ``partitions``.

        Raises
        ------
        ProblemError
            504 if that takes longer than ``settings.wait_ms``.
        InvalidInputError
            If it names a partition that there is not.
        """
        most = self.tenant.partitions
        if strange := [each for each in receipt.positions if each >= most]:
            raise InvalidInputError(
                f"the receipt names partition {strange[0]}, and the last of this service is "
                f"{most - 1}: pass the one that an accepted event returned"
            )
        with translated():
            done = await self.applied.wait(receipt, partitions, self.settings.wait_ms / 1000)
        if not done:
            raise ProblemError(
                "not-applied-yet",
                f"not applied within {self.settings.wait_ms} ms",
                headers={"retry-after": "1"},
            )

    def draining(self) -> bool:
        """Say whether the service is about to end."""
        return self._drain_file is not None and self._drain_file.exists()

    async def live(self, entity_id: str) -> LiveState | None:
        """Read a user's live row."""
        return (await self.read(entity_id, None))[0]

    async def read(
        self, entity_id: str, service: str | None
    ) -> tuple[LiveState | None, dict[str, Any] | None]:
        """Read a user's live row and batch features in one round trip.

        Parameters
        ----------
        service
            Feature service whose batch features are wanted; None: the row alone.
        """
        batch = [] if service is None else self.features.fields(service)
        values = await self.bounded(self.store.hmget(row_key(entity_id), [*FIELDS, *batch]))
        return self._parsed(values, service)

    def _parsed(
        self, values: list[bytes | None], service: str | None
    ) -> tuple[LiveState | None, dict[str, Any] | None]:
        row = parse_live(values[: len(FIELDS)])
        if service is None:
            return row, None
        return row, self.features.decode(service, values[len(FIELDS) :])

    async def find(self, user_id: str, after: str | None) -> tuple[str, LiveState | None]:
        """Return the entity id and row of a user id, or of an anonymous id of that name.

        An anonymous id that belongs to a user is read as that user.
        """
        return (await self.find_whole(user_id, after, None))[:2]

    async def find_whole(
        self, user_id: str, after: str | None, service: str | None
    ) -> tuple[str, LiveState | None, dict[str, Any] | None]:
        """Do what `find` does, and return the batch features of ``service`` as well."""
        known, unknown = self.tenant.entity(user_id), self.tenant.anonymous(user_id)
        await self._wait_for(after, known, unknown)
        row, batch = await self.read(known, service)
        if row is not None:
            return known, row, batch
        anonymous, owner = await self._read_anonymous(unknown, service)
        if owner is not None:
            row, batch = await self.read(owner, service)
            if row is not None:
                return owner, row, batch
        row, batch = anonymous
        return (known if row is None else unknown), row, batch

    async def find_user(
        self, user_id: str, after: str | None, service: str | None
    ) -> tuple[str, LiveState | None, dict[str, Any] | None]:
        """Do what `find_whole` does for a user id alone.

        Anybody may speak for an anonymous id: what it allows must not count for the user id of
        the same name.
        """
        entity = self.tenant.entity(user_id)
        if after is not None:
            await self.reached(Receipt.parse(after), {partition_of(entity)})
        row, batch = await self.read(entity, service)
        return entity, row, batch

    async def owner(self, anonymous: str) -> str | None:
        """Return the entity id of the user to whom an anonymous id belongs; None: nobody's."""
        value = await self.bounded(self.store.hget(owners_key(partition_of(anonymous)), anonymous))
        return owner_of(value)

    async def first_owner(self, anonymous: str) -> str | None:
        """Return the user who has what an anonymous id did before it was linked; None: nobody."""
        value = await self.bounded(self.store.hget(owners_key(partition_of(anonymous)), anonymous))
        found = first_owner_of(value)
        return None if found is None else found[0]

    async def _wait_for(self, after: str | None, known: str, unknown: str) -> None:
        if after is None:
            return
        entities, receipt = {known, unknown}, Receipt.parse(after)
        if receipt.positions.keys() - {partition_of(entity) for entity in entities}:
            # What an anonymous id does stands in the log of the user it belongs to.
            owner = await self.owner(unknown)
            entities |= {owner} if owner is not None else set()
        await self.reached(receipt, {partition_of(entity) for entity in entities})

    async def _read_anonymous(
        self, entity_id: str, service: str | None
    ) -> tuple[tuple[LiveState | None, dict[str, Any] | None], str | None]:
        """Do what `read` does, and return whose the anonymous id is, in the same round trip."""
        fields = [*FIELDS, *([] if service is None else self.features.fields(service))]
        async with self.store.pipeline(transaction=False) as pipe:
            pipe.hmget(row_key(entity_id), fields)
            pipe.hget(owners_key(partition_of(entity_id)), entity_id)
            values, owner = await self.bounded(pipe.execute())
        return self._parsed(values, service), owner_of(owner)

    @property
    def model(self) -> Any:
        """The newest model; None without one."""
        return self.models.newest.model

    @property
    def recommender(self) -> Recommender:
        """The newest model's recommender, or the one that goes by profiles and popularity."""
        return self.models.newest.recommender

    def served(self, row: LiveState | None) -> tuple[Serving, bytes | None]:
        """Return what serves a row, and the row's encoder state if that made it.

        A row of a model that is not loaded is served by the newest, without a state.
        """
        found = None if row is None or not row.model else self.models.of(row.model)
        if row is None or found is None or found.model is None:
            return self.models.newest, None
        return found, row.learned or None

    def profile(self, row: LiveState) -> explicit.ExplicitProfile:
        """Return the row's explicit profile."""
        return explicit.decode(row.profile)

    async def _follow_popular(self) -> None:
        while True:
            try:
                popular, trending = [
                    await popular_offered(self.store, key, self.catalogue.entries)
                    for key in (popularity.KEY, popularity.TREND_KEY)
                ]
                self.models.set_popular(popular, trending)
            except (redis.RedisError, OSError) as error:
                _log.warning("popularity_unread", error=type(error).__name__)
            await asyncio.sleep(_POPULAR_EVERY_S)


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
