"""Bodies of events, and requests that must be refused, for tests of the HTTP API."""

from typing import Any

import orjson

from services.client import Client


def view(user: str, item: str = "A", **more: Any) -> dict[str, Any]:
    return {"type": "view_item", "user_id": user, "items": [{"item_id": item}], **more}


def purchase(user: str, item: str, **more: Any) -> dict[str, Any]:
    return {**view(user, item), "type": "purchase", "order_id": "o-" + item, **more}


def refused(
    client: Client, method: str, path: str, *, escaped: bool = False, **request: Any
) -> dict[str, Any]:
    """Send what must be refused and return the checked problem."""
    response = client.http.request(method, path, **request)
    problem: dict[str, Any] = orjson.loads(response.content)
    assert response.headers["content-type"] == "application/problem+json", response.content
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert response.headers["server-timing"].startswith("app;dur=")
    assert problem["hint"]
    assert escaped or problem["instance"] == path.split("?", maxsplit=1)[0]
    assert client.http.get(problem["type"]).status_code == 200
    return problem


def post(client: Client, body: Any, path: str = "/v1/events") -> dict[str, Any]:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return refused(
        client, "POST", path, content=content, headers={"content-type": "application/json"}
    )
