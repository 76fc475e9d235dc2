"""Eligibility for a campaign at all: consent, audience, exclusions.

A part of the audience that a live profile can answer is asked of the profile, at once; the rest
of the archive's index, as of its last part. Belongs here: asking the one or the other.
"""

from collections.abc import Mapping

from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.live import User, is_member
from feature_repo.audiences.plan import plan
from feature_repo.audiences.ready import ready
from feature_repo.audiences.rules import AnyOf, Definition
from feature_repo.errors import ConflictError
from services.audiences.definitions import Definitions
from services.audiences.index import AudienceIndex
from services.campaigns.campaign import Campaign
from services.campaigns.decision import UserFacts
from services.runtime import workers


class Eligibility:
    """Asks audiences about one user at a time."""

    def __init__(self, definitions: Definitions, index: AudienceIndex) -> None:
        self._definitions = definitions
        self._index = index
        self._ready = ready()

    async def definitions(self) -> Mapping[str, Definition]:
        """Return every audience that campaigns may name, as it is now."""
        stored = await self._definitions.all()
        return self._ready | {name: each.definition for name, each in stored.items()}

    async def of(
        self, campaign: Campaign, known: Mapping[str, Definition], user: User, now_ms: int
    ) -> UserFacts:
        """Return what a campaign's audience says of a user at ``user.now_s``.

        Raises
        ------
        ConflictError
            If the audience has been removed.
        """
        if campaign.audience not in known:
            raise ConflictError(f"the campaign's audience {campaign.audience} has been removed")
        definition = known[campaign.audience]
        purposes = {campaign.channel, *definition.consent}
        rule = definition.model_copy(update={"consent": [], "exclude": []})
        excluded = False
        if definition.exclude:
            some = AnyOf.model_construct(any=definition.exclude)
            excluded = await self._holds(rule.model_copy(update={"rule": some}), known, user)
        return UserFacts(
            user.pseudonym,
            now_ms,
            consented=all(map(user.allows, purposes)),
            member=await self._holds(rule, known, user),
            excluded=excluded,
        )

    async def _holds(
        self, definition: Definition, known: Mapping[str, Definition], user: User
    ) -> bool:
        if plan(definition, known)["mode"] == "realtime":
            return is_member(definition, known, user)
        index = await self._index.present()
        return await workers.ASKING.run(_ask_archive, index, definition, known, user)


def _ask_archive(
    index: Index, definition: Definition, known: Mapping[str, Definition], user: User
) -> bool:
    now_ms = user.now_s * 1000
    query = compile_definition(definition, known, now_ms=now_ms, past=index.is_past(now_ms))
    return bool(index.rows(query.holds(), {**query.parameters, "entity": user.pseudonym})[0][0])
