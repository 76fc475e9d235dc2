"""From a ranked audience to a threshold: how many the campaign chooses, and from which score on.

Belongs here: that number. The order itself is `scores`'.
"""

import math

from feature_repo.events.schema import iso
from services.campaigns.campaign import Campaign
from services.campaigns.definitions import Stored
from services.campaigns.ledger import Ledger, Spent, budget_u, cost_u
from services.campaigns.schemas import AudienceRanking
from services.campaigns.scores import RankedAudience
from services.context.context import Context


def most_chosen(campaign: Campaign, spent: Spent, scored: int) -> int:
    """Return how many users of ``scored`` are chosen: ``top`` per cent, within the budget left.

    Of those chosen the hold-out's share costs nothing, so the budget reaches that much further.

    Examples
    --------
    >>> from services.campaigns.language import read
    >>> spring = read({
    ...     "audience": "a", "offer": {"id": "o", "cost": 0.5}, "channel": "email", "top": 50,
    ...     "window": {"from": "2026-01-01", "until": "2026-02-01"}, "budget": {"amount": 9},
    ... })
    >>> nothing = Spent(0, 0, 0, None, None)
    >>> most_chosen(spring, nothing, 30), most_chosen(spring, nothing, 300)
    (15, 20)
    """
    most = math.ceil(scored * campaign.top / 100)
    if campaign.budget is None:
        return most
    left = []
    if campaign.budget.messages is not None:
        left.append(campaign.budget.messages - spent.messages)
    cost = cost_u(campaign.offer.cost)
    if campaign.budget.amount is not None and cost:
        left.append((budget_u(campaign.budget.amount) - spent.amount_u) // cost)
    reach = [math.floor(max(0, one) / (1 - campaign.control.holdout) + 1e-9) for one in left]
    return min([most, *reach])


async def set_threshold(
    context: Context, stored: Stored, found: RankedAudience, now_ms: int, limit: int
) -> AudienceRanking:
    """Keep the score of the last user that is chosen, and return the ranking as it is answered."""
    spent = await context.await_bounded(context.of(Ledger).read_spent(stored.name))
    most = most_chosen(stored.campaign, spent, len(found.users))
    threshold = found.users[most - 1][1] if most else math.inf
    await context.await_bounded(context.of(Ledger).set_threshold(stored.name, threshold, now_ms))
    return {
        "campaign_id": stored.name,
        "rank_by": stored.campaign.rank_by,
        "as_of": iso(now_ms),
        "members": found.members,
        "scored": len(found.users),
        "chosen": sum(score >= threshold for _, score in found.users),
        "threshold": threshold if most else None,
        "users": [
            {"user": pseudonym, "score": score, "rank": rank}
            for rank, (pseudonym, score) in enumerate(found.users[:limit], 1)
        ],
    }
