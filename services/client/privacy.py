"""The client's calls about what people may ask of a shop: to be erased."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from services.client.subject import Subject

if TYPE_CHECKING:
    from services.erasure import schemas as said

_LOOK_S: Final = 0.5


class PrivacyCalls(Subject):
    """Erases people; what is returned are the answers' JSON documents."""

    root = "/v1"

    def erase(self, user_id: str, *, suppress: bool = True) -> "said.ErasureBegun":
        """Erase a user; from the answer on they are refused everywhere."""
        return self._ask("DELETE", "users", user_id, suppress="true" if suppress else "false")

    def erase_all(self, user_ids: Sequence[str], *, suppress: bool = True) -> "said.ErasureBegun":
        """Erase up to 5,000 users at once."""
        return self._ask(
            "POST", "erasures", body={"user_ids": list(user_ids), "suppress": suppress}
        )

    def erasures(self, *, limit: int = 100, cursor: str | None = None) -> "said.ErasureList":
        """Return a page of erasures, the latest first."""
        return self._get("erasures", limit=limit, cursor=cursor)

    def erasure(self, erasure_id: str) -> "said.ErasureReceipt":
        """Return how far an erasure is, and what was found and removed where."""
        return self._get("erasures", erasure_id)

    def export_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of an export."""
        found: dict[str, Any] = self._get("schemas", "export")
        return found

    def wait_erased(
        self,
        erasure_id: str,
        *,
        timeout_s: float = 300.0,
        progress: "Callable[[said.ErasureReceipt], None]" = lambda _: None,
    ) -> "said.ErasureReceipt":
        """Return the receipt once an erasure is done; `TimeoutError` if that takes too long.

        Parameters
        ----------
        progress
            Told the receipt as it is so far.
        """
        until_s = time.monotonic() + timeout_s
        while (found := self.erasure(erasure_id))["status"] != "done":
            if time.monotonic() > until_s:
                raise TimeoutError(f"{erasure_id} is not done after {timeout_s:g} s: ask again")
            progress(found)
            time.sleep(_LOOK_S)
        return found
