"""The client's calls about models: which there are, and which is production."""

from typing import TYPE_CHECKING

from services.client.subject import Subject, drop_none

if TYPE_CHECKING:
    from services.models import schemas as said
    from services.models.registry import AliasName


class ModelCalls(Subject):
    """Lists models, and changes their aliases with an admin key."""

    root = "/v1/models"

    def all(self) -> "said.ModelList":
        """Return the models, their aliases, and which one is in use."""
        return self._get()

    def card(self, name: str) -> "said.ModelCard":
        """Return a model's card."""
        return self._get(name)

    def promote(
        self, name: str, alias: "AliasName" = "production", *, force: bool | None = None
    ) -> "said.ModelMoved":
        """Give a model an alias; ``force``: in spite of what its gate found."""
        return self._ask("POST", name, "promote", body=drop_none(alias=alias, force=force))

    def roll_back(self, production: str) -> "said.ModelMoved":
        """Make the model production again that was it before ``production``, which is it now.

        Said from which: a request that is repeated must not go back twice.
        """
        return self._ask("POST", "rollback", **{"from": production})

    def remove(self, name: str, *, force: bool = False) -> "said.ModelMoved":
        """Remove a model that has no alias; ``force``: though rows follow it."""
        return self._ask("DELETE", name, force="true" if force else None)
