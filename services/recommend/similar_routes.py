"""The route of similar items: what goes with an item by the model, else by its content."""

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from services.catalogue.catalogue import Catalogue
from services.catalogue.routes import ItemId, unknown_item
from services.context.answers import answer, context_of
from services.http import scopes
from services.http.answer_schemas import SIMILAR, Similar
from services.recommend.serving import ServedModels
from services.runtime import workers

router = scopes.router("server", "items", "/v1/items")


@router.get("/{item_id}/similar", responses=SIMILAR)
async def get_similar(
    request: Request, item_id: ItemId, n: Annotated[int, Query(ge=1, le=500)] = 10
) -> Response:
    """Return the items most like this one: by the model's embeddings, else by its content."""
    context = context_of(request)
    recommender = context.of(ServedModels).newest.recommender
    method, found = await workers.READING.run(
        recommender.similar(item_id, n, context.clock.now_ms())
    )
    if not found and item_id not in context.of(Catalogue).entries:
        raise unknown_item()
    similar: Similar = {
        "item_id": item_id,
        "method": method,
        "model": recommender.version if method.startswith("embedding") else None,
        "items": [
            {"item_id": other, "score": round(score, 6), "rank": rank}
            for rank, (other, score) in enumerate(found, start=1)
        ],
    }
    return answer(similar)
