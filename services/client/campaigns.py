"""The client's calls about campaigns."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from services.client.subject import Subject, drop_none

if TYPE_CHECKING:
    from services.campaigns import schemas as said


class CampaignCalls(Subject):
    """Asks about campaigns; what is returned are the answers' JSON documents."""

    root = "/v1/campaigns"

    def page(self, *, limit: int = 100, cursor: str | None = None) -> "said.CampaignList":
        """Return a page of campaigns by name."""
        return self._get(limit=limit, cursor=cursor)

    def schema(self) -> Any:
        """Return the JSON Schema of a campaign."""
        return self._get("schema")

    def create(self, name: str, campaign: Mapping[str, Any]) -> "said.CampaignDetail":
        """Create a campaign; 409 if the name is taken."""
        return self._ask("POST", body={"name": name, **campaign})

    def put(self, name: str, campaign: Mapping[str, Any]) -> "said.CampaignDetail":
        """Create or replace a campaign."""
        return self._ask("PUT", name, body=dict(campaign))

    def get(self, name: str) -> "said.CampaignDetail":
        """Return a campaign, and what it has decided and spent."""
        return self._get(name)

    def delete(self, name: str) -> bool:
        """Remove a campaign; False if there was none."""
        return self._delete(name)

    def decide(
        self,
        name: str,
        user_id: str,
        *,
        decision_id: str | None = None,
        time: str | int | None = None,
        tz: str | None = None,
    ) -> "said.Decision":
        """Decide about a user; a repeat, also after no answer came, gets the same decision."""
        body = {"user_id": user_id} | drop_none(decision_id=decision_id, time=time, tz=tz)
        return self._ask("POST", name, "decide", body=body)

    def rank(self, name: str, *, limit: int = 100) -> "said.AudienceRanking":
        """Rank the audience and choose the best from now on."""
        return self._ask("POST", name, "rank", limit=limit)

    def report(self, name: str) -> "said.CampaignReport":
        """Return what a campaign has brought."""
        return self._get(name, "report")

    def plot(self, name: str, plot: Literal["arms", "qini"]) -> str:
        """Return a picture of the report as SVG."""
        return str(self._send("GET", self._path(name, "report", f"{plot}.svg"), None, {}).text)
