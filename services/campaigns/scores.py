"""The scores that campaigns rank by: of one user for a decision, of an audience for a threshold.

A score has a name: ``purchase_7d`` for ``rank_by: propensity``, ``uplift:OFFER`` for ``uplift``.
It is looked for among the propensities that the model of the user's row gives, then among those
put down for all users (``portrait audience score``; `feature_repo.audiences.index`). Belongs
here: where a score comes from. How one is made is for `training` to say.
"""

from dataclasses import dataclass
from typing import Any

from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.rules import Definition
from feature_repo.online.live_row import LiveState
from services.audiences.index import AudienceIndex
from services.audiences.requests import all_known
from services.campaigns.assignment import random_score
from services.campaigns.definitions import Stored
from services.context.context import Context
from services.http.problems import ProblemError
from services.recommend.serving import ServedModels
from services.runtime import workers

_ONE = "SELECT value FROM scores JOIN users USING (u) WHERE entity = $entity AND name = $name"
_ANY = "SELECT 1 FROM scores WHERE name = $name AND value IS NOT NULL LIMIT 1"


@dataclass(frozen=True, slots=True)
class RankedAudience:
    """An audience in the order of a campaign's score.

    Attributes
    ----------
    users
        (pseudonym, score), the highest first, ties by pseudonym.
    members
        All members; those without a score are not in ``users``.
    """

    users: list[tuple[str, float]]
    members: int


async def score_of(
    context: Context,
    stored: Stored,
    pseudonym: str,
    row: LiveState,
    features: dict[str, Any] | None,
    now_ms: int,
) -> float | None:
    """Return a user's score; None if there are such scores, but not of this user.

    Raises
    ------
    ProblemError
        422 if nobody has such a score.
    """
    name = stored.campaign.score
    if name is None:
        return random_score(stored.salt, pseudonym)
    served, learned = context.of(ServedModels).find_serving(row)
    if learned is not None:
        propensities = served.scorer.propensities(learned, now_ms, features)
        if name in propensities:
            return float(propensities[name][0])
    index = await context.of(AudienceIndex).present()
    return await workers.ASKING.run(_stored_score, index, stored, name, pseudonym)


async def rank_audience(context: Context, stored: Stored, now_ms: int) -> RankedAudience:
    """Return the audience of a campaign, those with its channel's consent, in order of its score.

    Raises
    ------
    ProblemError
        422 if nobody has such a score.
    """
    index = await context.of(AudienceIndex).present()
    _, known = await all_known(context)
    return await workers.ASKING.run(rank, index, known, stored, now_ms)


def rank(index: Index, known: dict[str, Definition], stored: Stored, now_ms: int) -> RankedAudience:
    """Do what `rank_audience` does, with an index and all audiences at hand."""
    campaign = stored.campaign
    definition = Definition.model_validate(
        {"rule": {"audience": campaign.audience}, "consent": [campaign.channel]}
    )
    query = compile_definition(definition, known, now_ms=now_ms, past=index.is_past(now_ms))
    name = campaign.score
    if name is not None:
        _check_score(index, stored, name)
    found = index.rows(query.select_scored(), {**query.parameters, "score_name": name or ""})
    if name is None:
        users = [(str(each), random_score(stored.salt, each)) for each, _ in found]
    else:
        users = [(str(each), float(value)) for each, value in found if value is not None]
    return RankedAudience(sorted(users, key=lambda pair: (-pair[1], pair[0])), len(found))


def _stored_score(index: Index, stored: Stored, name: str, pseudonym: str) -> float | None:
    found = index.rows(_ONE, {"entity": pseudonym, "name": name})
    if not found:
        _check_score(index, stored, name)
    return None if not found or found[0][0] is None else float(found[0][0])


def _check_score(index: Index, stored: Stored, name: str) -> None:
    if not index.rows(_ANY, {"name": name}):
        detail = (
            f"no user has a score named {name}, which rank_by {stored.campaign.rank_by} needs: "
            "train a model that gives it, run `portrait audience score`, or rank at random"
        )
        raise ProblemError("invalid", detail, pointer="/rank_by")
