"""The API's description: what FastAPI cannot see by itself is added here.

Keys, bodies that handlers read for themselves, headers of every answer, and that every error
is a problem. What answers look like is said in `answer_schemas`.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from feature_repo.archive.catalogue import Item
from services.http.credentials import BEACONS
from services.http.problems import PROBLEM_URIS, TYPES
from services.http.scopes import needs_of

_REF: Final = "#/components/schemas/{model}"
_NDJSON: Final = "application/x-ndjson"

EVENT_EXAMPLE: Final = {
    "type": "view_item", "user_id": "123", "id": "e-1",
    "items": [{"item_id": "A", "price": 3.5, "category": "Grocery/Coffee"}],
}  # fmt: skip
ITEM_EXAMPLE: Final = {
    "item_id": "A", "title": "Fine Coffee", "category": "Grocery/Coffee", "price": 3.5,
    "vector": [0.6, -0.8],
}  # fmt: skip

SESSION_EXAMPLE: Final = {"events": [{"type": "view_item", "items": [{"item_id": "A"}]}], "n": 5}
RANK_EXAMPLE: Final = {
    "user_id": "123", "query": "coffee",
    "items": [{"item_id": "A", "relevance": 7.5}, {"item_id": "B", "relevance": 7.1}],
}  # fmt: skip
CONSENTS_EXAMPLE: Final = {
    "consents": {"marketing_email": {"granted": True, "version": "2026-11"}, "ads": False},
    "source": "preferences",
}
DECIDE_EXAMPLE: Final = {"user_id": "123", "decision_id": "2026-11-27", "tz": "Europe/Berlin"}

PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id", "hint"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": PROBLEM_URIS},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
PROBLEM_EXAMPLE: Final = {
    "type": "/problems/invalid", "title": TYPES["invalid"].title, "status": 422,
    "detail": "items is required for view_item", "instance": "/v1/events",
    "request_id": "5f1c9e3a", "hint": TYPES["invalid"].mend,
    "errors": [{"pointer": "", "detail": "items is required for view_item"}],
}  # fmt: skip
_PROBLEM: Final = {
    "application/problem+json": {
        "schema": {"$ref": _REF.format(model="Problem")}, "example": PROBLEM_EXAMPLE
    }
}  # fmt: skip
_EVERY_ANSWER: Final = {
    "x-request-id": {
        "description": "The request's id: the one that was sent, else one that was made",
        "required": True,
        "schema": {"type": "string"},
    },
    "server-timing": {
        "description": "Milliseconds until the answer began: `app;dur=1.25`",
        "required": True,
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER: Final = {
    "retry-after": {"description": "Seconds, with 429 and 503", "schema": {"type": "integer"}}
}


def body_of(model: type[Any], example: Any) -> dict[str, Any]:
    """Return the description of a body that holds one object."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    }


def patch_of(example: dict[str, Any], *, batch: bool = False) -> dict[str, Any]:
    """Return the description of a body that changes an item, or of up to 1,000 of them."""
    one: dict[str, Any] = {"$ref": _REF.format(model="ItemPatch")}
    content: dict[str, Any] = {
        media_type: {"schema": one, "example": example}
        for media_type in ("application/json", "application/merge-patch+json")
    }
    if batch:
        named = {"allOf": [one, {"required": ["item_id"]}]}
        several = {"type": "array", "items": named, "minItems": 1, "maxItems": 1000}
        line = '{"item_id":"A","in_stock":false}'
        content = {
            "application/json": {"schema": several, "example": [example]},
            _NDJSON: {
                "schema": {"type": "string", "description": "One object a line"}, "example": line
            },
        }  # fmt: skip
    return {"requestBody": {"required": True, "content": content}}


def batch_of(model: type[Any], example: Any) -> dict[str, Any]:
    """Return the description of a body that holds up to 1,000 objects, as JSON or NDJSON."""
    schema = {
        "type": "array", "items": {"$ref": _REF.format(model=model.__name__)}, "minItems": 1,
        "maxItems": 1000,
    }  # fmt: skip
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "example": [example]},
                _NDJSON: {
                    "schema": {"type": "string", "description": "One object a line"},
                    "example": '{"item_id":"A"}' if model is Item else
                    '{"type":"login","user_id":"123","id":"e-2"}',
                },
            },
        }
    }  # fmt: skip


def describe(app: FastAPI, routers: Sequence[APIRouter], bodies: Sequence[type[BaseModel]]) -> None:
    """Make ``app`` describe itself with what is said here.

    Parameters
    ----------
    routers
        Those that ``app`` includes.
    bodies
        What handlers read for themselves.
    """
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(original(), bodies)
            for route in (route for router in routers for route in router.routes):
                if isinstance(route, APIRoute):
                    path = app.openapi_schema["paths"][route.path_format]
                    _give_scope(path, route)
                    _give_examples(path, route)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(schema: dict[str, Any], bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "basic": {"type": "http", "scheme": "basic", "description": "The key as the user name"},
        "beacon": {
            "type": "apiKey",
            "in": "query",
            "name": "key",
            "description": "A key of scope write, with a body of text/plain that holds JSON",
        },
    }
    schemas = components.setdefault("schemas", {})
    _, read = models_json_schema([(model, "validation") for model in bodies], ref_template=_REF)
    given = {name: _without_doctest(made) for name, made in read["$defs"].items()}
    twice = [name for name, made in given.items() if schemas.get(name, made) != made]
    assert not twice, f"two schemas are named {twice[0]}: rename one"
    schemas |= given
    schemas["ItemPatch"] = _patch(schemas["Item"])
    schemas["Problem"] = PROBLEM_SCHEMA
    for operations in schema["paths"].values():
        for operation in operations.values():
            _complete_responses(operation["responses"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return schema


def _give_scope(path: dict[str, Any], route: APIRoute) -> None:
    """Say which scope a key must have: ``x-scope``, and as the role of each way to send one."""
    needed = needs_of(route)
    for method in route.methods or ():
        operation = path[method.lower()]
        operation["x-scope"] = needed
        ways: tuple[str, ...] = () if needed == "open" else ("bearer", "header", "basic")
        if method == "POST" and route.path_format in BEACONS:
            ways += ("beacon",)
            content = operation["requestBody"]["content"]
            example = orjson.dumps(content["application/json"]["example"]).decode()
            content["text/plain"] = {"schema": {"type": "string"}, "example": example}
        operation["security"] = [{way: [needed]} for way in ways]


def _give_examples(path: dict[str, Any], route: APIRoute) -> None:
    """Put the examples of answers in: FastAPI leaves out what is null in them."""
    for method in route.methods or ():
        for status, answer in route.responses.items():
            shown = path[method.lower()]["responses"][str(status)]
            for media_type, one in answer.get("content", {}).items():
                shown["content"][media_type] |= one


def _complete_responses(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for answer in responses.values():
        answer["headers"] = answer.get("headers", {}) | _EVERY_ANSWER
    problem = {"description": "A problem (RFC 9457)", "content": _PROBLEM}
    responses["default"] = problem | {"headers": _EVERY_ANSWER | _RETRY_AFTER}
    if "422" in responses:  # a batch of which nothing was taken, or no batch at all
        responses["422"]["content"] |= _PROBLEM


def _patch(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what changes an object: any of its fields, null to take one away."""
    fields = {
        name: field if name == "item_id" else {"anyOf": [field, {"type": "null"}]}
        for name, field in schema["properties"].items()
    }
    told = "The fields to change; what is not named stays, null takes a field away (RFC 7396)."
    return {
        "title": "ItemPatch", "description": told, "type": "object", "properties": fields,
        "additionalProperties": False,
    }  # fmt: skip


def _without_doctest(schema: dict[str, Any]) -> dict[str, Any]:
    text = schema.get("description", "").partition("\n\nExamples\n")[0]
    return schema | ({"description": text} if text else {})
