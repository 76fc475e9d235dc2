"""Start of a replica of the service, in a process of its own."""

import os

from services.runtime import logs
from services.settings import Settings
from training.fit.local_ray import keep_replica_within


def begin(settings: Settings, name: str) -> None:
    """Let nobody else read its files, or reach its ports; write its log."""
    os.umask(0o077)
    logs.configure(settings, name)
    keep_replica_within()
