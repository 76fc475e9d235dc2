"""Route that explains a score: which past events moved it, signed, and in words."""

import math
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from services.catalogue.catalogue import Catalogue
from services.context.answers import answer, context_of
from services.context.context import Context
from services.context.users import After, UserId
from services.http import scopes
from services.http.answer_schemas import EXPLAINED, Explanation
from services.http.problems import ProblemError, unknown_user
from services.recommend.contributions import Contributions, contributions, to_response
from services.recommend.request_context import of_user
from services.recommend.serving import Serving

router = scopes.router("server", "recommendations", "/v1/users")

_ITEM_PREFIX = "item:"


@router.get("/{user_id}/explanations", responses=EXPLAINED)
async def get_explanation(
    request: Request,
    user_id: UserId,
    target: Annotated[str, Query(max_length=140, description="`item:` and an item id")],
    events: Annotated[int, Query(ge=1, le=300, description="Events looked at, the newest")] = 100,
    after: After = None,
) -> Response:
    """Say which past events moved the score of an item for a user, each left out by itself."""
    item = _item(target)
    context = context_of(request)
    request_context = await of_user(context, user_id, after)
    if request_context.lacking == "store_unavailable":
        raise ProblemError(
            "unavailable", "the online store does not answer: retry", headers={"retry-after": "1"}
        )
    if request_context.pseudonym is None or not request_context.stored:
        raise unknown_user()
    found = await contributions(context, request_context, [item], events)
    if not found.items:
        raise ProblemError("not-found", "the model in use does not score an item of this id")
    return answer(_reply(context, user_id, found, request_context.now_ms, request_context.served))


def _item(target: str) -> str:
    item = target.removeprefix(_ITEM_PREFIX)
    if item == target or not 1 <= len(item) <= 128:
        detail = "target is `item:` and an item id of 1 to 128 characters"
        raise ProblemError("invalid", detail, pointer="/query/target")
    return item


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _reply(
    context: Context, user_id: str, found: Contributions, now_ms: int, served: Serving
) -> Explanation:
    title, by_model = context.of(Catalogue).title, bool(found.memories)
    memories = found.memories[0] if by_model else {}
    return {
        "user_id": user_id,
        "target": {"kind": "item", "item_id": found.items[0], "title": title(found.items[0])},
        "score": round(float(found.scores[0]), 6),
        "model": served.version if by_model else None,
        "method": found.method,
        "exact": found.exact,
        "events": {"looked_at": len(found.events), "of": found.of},
        "contributions": to_response(found, 0, title, now_ms, len(found.events)),
        "memories": [
            {"item_id": item_id, "title": title(item_id), "contribution": round(value, 6)}
            for item_id, value in sorted(memories.items(), key=lambda pair: -abs(pair[1]))
            if value != 0
        ],
        "popularity": round(found.popularity[0], 6) if by_model else None,
        "reranking": [
            {"fact": fact, "value": _number(value), "contribution": round(amount, 6)}
            for fact, value, amount in (found.reranking[0] if by_model else [])
            if round(amount, 6) != 0
        ],
    }
