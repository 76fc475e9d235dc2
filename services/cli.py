"""The ``portrait`` command: thin entrances to what the rooms do."""

import atexit
import os
import sys

from services import (
    cli_audience,
    cli_campaign,
    cli_data,
    cli_model,
    cli_proof,
    cli_report,
    cli_service,
)
from services.command import app

__all__ = [
    "app",
    "cli_audience",
    "cli_campaign",
    "cli_data",
    "cli_model",
    "cli_proof",
    "cli_report",
    "cli_service",
    "main",
]


def main() -> None:
    """Run the command line."""
    atexit.register(_hush)
    app()


def _hush() -> None:
    # DuckDB's binding prints pages about leaked objects while the interpreter goes down.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
