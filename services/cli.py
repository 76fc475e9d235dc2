"""The ``portrait`` command: thin entrances to what the rooms do."""

import atexit
import os
import sys

from services.commands import audience, campaign, data, model, proof, report, service
from services.commands.application import app

__all__ = [
    "app",
    "audience",
    "campaign",
    "data",
    "main",
    "model",
    "proof",
    "report",
    "service",
]


def main() -> None:
    """Run the command line; what it writes is for its user alone."""
    os.umask(0o077)
    atexit.register(_hush)
    app()


def _hush() -> None:
    # DuckDB's binding prints pages about leaked objects while the interpreter goes down.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
