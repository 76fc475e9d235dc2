"""The one place that wires: settings in, a Ray Serve application out.

Used by `services.hosting.serve` and by a Serve config file (``import_path: services.app:build``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from feature_repo.errors import InvalidSettingError
from services.recommend import rule_book
from services.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_ONGOING_REQUESTS: Final = 1000
HEALTH_CHECK_PERIOD_S: Final = 2.0
"""A dead replica is noticed, and replaced, after so long at most; Serve's default is 10 s."""


def build(args: Mapping[str, Any]) -> Any:
    """Return the application: gateways in front, updaters beside them.

    Parameters
    ----------
    args
        Settings by name, each overriding its environment variable; ``redis_url`` must be
        known from either. Optional: ``admin_key_sha256``, digest of an admin key;
        ``drain_file``, a file that tells the gateways that the service is about to end.

    Raises
    ------
    InvalidSettingError
        If no store is named, the file of rules is wrong, or the admin key could be guessed.
    """
    from ray import serve

    from services.update.updater import Updater

    given = dict(args)
    digest = given.pop("admin_key_sha256", None) or None
    drain_file = given.pop("drain_file", None)
    settings = Settings(**given)
    if settings.redis_url is None:
        raise InvalidSettingError(
            "redis_url is not set: a Serve application needs a store of its own to talk to; "
            "set PORTRAIT_REDIS_URL, or use `portrait serve`, which starts one"
        )
    if digest is None and settings.api_key is not None:
        from services.http.api_keys import check_key
        from services.http.api_keys import digest as digest_of

        check_key(settings.api_key.get_secret_value())
        digest = digest_of(settings.api_key.get_secret_value())
    rule_book.load(settings.rules)  # wrong rules are refused before anything is deployed
    url = settings.redis_url
    rules = None if settings.rules is None else settings.rules.resolve()
    settings = settings.model_copy(
        update={"home": settings.home.resolve(), "rules": rules, "api_key": None}
    )

    # Ray evaluates this in each replica, so nothing of the app has to be pickled.
    def application() -> "FastAPI":
        from services.gateway.application import create_app

        return create_app(
            settings,
            url,
            digest,
            behind_serve=True,
            drain_file=None if drain_file is None else Path(drain_file),
        )

    updater = serve.deployment(
        Updater,
        name="Updater",
        num_replicas=settings.updaters,
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        ray_actor_options={"num_cpus": 0.25},
    )
    gateway = serve.deployment(
        serve.ingress(application)(),
        name="Gateway",
        num_replicas=settings.gateways,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        ray_actor_options={"num_cpus": 0.25},
    )
    # The handle is not used: binding it puts both into one application.
    return gateway.bind(updater.bind(settings, url))
