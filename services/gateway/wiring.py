"""The wiring of a gateway replica: its context and subjects, and how they come up and go down."""

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from feature_repo.archive.query_bounds import sweep
from feature_repo.events import time_zones
from feature_repo.events.minimisation import Minimiser
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.online.connection import connect_async
from services.analytics.cube import AnalyticsCube
from services.audiences.definitions import Definitions
from services.audiences.index import AudienceIndex
from services.audit.recorder import AuditRecorder
from services.audit.writer import TrailWriter
from services.campaigns.definitions import Campaigns
from services.campaigns.eligibility import Eligibility
from services.campaigns.ledger import Ledger
from services.catalogue.catalogue import CHANGED, Catalogue
from services.context.context import Context
from services.erasure.follower import ErasureFollower
from services.event_log.append import Appender
from services.event_log.consistency import AppliedCursors
from services.event_log.currency import ShopCurrency
from services.event_log.store_room import StoreRoom
from services.http.api_keys import KeyRing
from services.http.key_records import KeyRecords
from services.http.rate_limits import RateLimits
from services.http.wrong_keys import WrongKeys
from services.models.user_features import UserFeatureReader
from services.recommend import rule_book
from services.recommend.impressions import Impressions
from services.recommend.serving import PopularFollower, ServedModels
from services.settings import Settings
from services.update.health import Probe


class Replica:
    """Everything that one gateway replica holds between requests.

    Parameters
    ----------
    admin_digest
        See `services.http.api_keys.KeyRing`.
    drain_file
        While this file exists, the service is about to end; None outside ``portrait serve``.
    impressions
        Counts what was shown; see `services.recommend.impressions`.
    audit
        Counts uses of keys; see `services.audit.recorder`.

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
        impressions: Counter,
        audit: Counter,
    ) -> None:
        rules = rule_book.load(settings.rules)
        pseudonyms = Pseudonyms.load(settings.home, settings.partitions)
        store: Any = connect_async(url)
        self._settings, self._url = settings, url
        self.keys = KeyRing(store, admin_digest)
        self.rates = RateLimits(store, settings.rate_limit_per_min)
        self.wrong_keys = WrongKeys(
            store, settings.wrong_keys_per_min, behind_front=drain_file is not None
        )
        self.audit = AuditRecorder(store, pseudonyms, audit, serving=settings.audit_serving)
        self._trail = TrailWriter(settings.home, url, settings.audit_days)
        self._catalogue = Catalogue(store)
        self._room = StoreRoom(store)
        appender = Appender(
            store, lag_limit=settings.lag_limit, wait_replicas=settings.wait_replicas,
            profiled=settings.standing["profiling"], check_room=self._room.check,
        )  # fmt: skip
        self._impressions = Impressions(appender, impressions)
        self._applied = AppliedCursors(
            store,
            connect_async(url, timeout_s=15.0),
            pseudonyms.partitions,
            {CHANGED: self._catalogue.announce},
        )
        definitions = Definitions(store, pseudonyms)
        self._index = AudienceIndex(settings.home, settings.standing)
        self._analytics = AnalyticsCube(self._index)
        self._models = ServedModels(settings, self._catalogue, store)
        self._popular = PopularFollower(store, self._catalogue, self._models)
        self.context = Context(
            settings, store, pseudonyms, self._applied, UserFeatureReader(),
            lambda: drain_file is not None and drain_file.exists(), lambda: self._models.restored,
        )  # fmt: skip
        for subject in (
            rules, self._catalogue, ShopCurrency(settings, store), appender, self._impressions,
            Probe(store, pseudonyms.partitions), definitions, self._index, Campaigns(store),
            Eligibility(definitions, self._index), Ledger(store, settings.decision_days),
            self._analytics, self._models, self.keys, KeyRecords(store),
            Minimiser(settings.field_policy, pseudonyms), self._room,
        ):  # fmt: skip
            self.context.add(subject)
        self._erasures = ErasureFollower(self.context)

    async def start(self) -> None:
        """Load the model and the catalogue, open Feast, begin to listen."""
        sweep(self._settings.home)
        self._settings.export(self._url)
        await self._erasures.start()
        await self._room.start()
        await self._models.load()
        self.context.features.open()
        await asyncio.to_thread(time_zones.list_known)  # no event waits for it
        await self._catalogue.start()
        self._models.newest.recommender.warm()
        self._models.start()
        self._applied.start()
        self._impressions.start()
        self.audit.start()
        self._trail.start()
        self._popular.start()

    async def stop(self) -> None:
        """Close what `start` opened."""
        await self._erasures.stop()
        await self._room.stop()
        await self._impressions.stop()
        await self.audit.stop()
        await self._trail.stop()
        await self._popular.stop()
        await self._models.stop()
        await self._applied.stop()
        await self._analytics.stop()
        await self._index.stop()
        await self._catalogue.stop()
        await self.context.store.aclose()
