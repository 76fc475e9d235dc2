"""Log lines of the service: JSON, one a line, pseudonyms only, on stderr."""

import logging
import sys
import warnings

import structlog


def configure(level: str) -> None:
    """Write structlog's lines as JSON from ``level`` on.

    Parameters
    ----------
    level
        debug, info, warning or error.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def hush_feast() -> None:
    """Keep Feast's advice and every library's deprecations off the terminal.

    Call it after Feast is imported, which asks for deprecations to be shown.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("feast").setLevel(logging.ERROR)
