"""The laboratory's commands, or in their place commands that name the extra that they need.

The service is installed without the laboratory: nothing of the product imports it but this, by
name, and only where it is there.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Final

import typer

from feature_repo.errors import InvalidInputError

COMMANDS: Final = ("bench", "chaos", "compare")
NEEDED: Final = ("services.lab", "training.lab", "polars", "lightgbm")
"""Code and libraries of the extra `lab`."""


def add_commands(app: typer.Typer) -> None:
    """Add the laboratory's commands to ``app``, or the refusal of each."""
    missing = next((name for name in NEEDED if find_spec(name) is None), None)
    if missing is None:
        import_module("services.lab.commands")
        return
    for name in COMMANDS:
        _add_refusal(app, name, missing)


def _add_refusal(app: typer.Typer, name: str, missing: str) -> None:
    anything = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(name, context_settings=anything, help="Needs the extra `lab`.")
    def refuse(context: typer.Context) -> None:
        raise InvalidInputError(
            f"portrait {context.info_name} needs the extra lab ({missing} is not installed): "
            "in a clone of the repository, run `make setup` or `pip install -e '.[lab]'`"
        )
