"""Requests about audiences: shared parameters, bodies and the definitions they go by."""

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Path, Query, Request

from feature_repo.audiences import language
from feature_repo.audiences.ready import ready
from feature_repo.audiences.rules import Definition
from feature_repo.audiences.values import moment_ms
from feature_repo.errors import InvalidRuleError
from services.audiences.definitions import Audience, Definitions
from services.audiences.index import AudienceIndex
from services.context.context import Context
from services.http import body
from services.http.problems import ProblemError
from services.runtime import workers

MAX_BYTES: Final = 2 * 1000 * 1000
"""Of a definition as JSON; as YAML `feature_repo.audiences.plain_yaml.MAX_BYTES`."""
YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_T = TypeVar("_T")

NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Name = Annotated[str, Path(pattern=NAME, max_length=64)]
AsOf = Annotated[
    str | None,
    Query(max_length=40, description="A day or an RFC 3339 time: members as they were; else now"),
]


async def read_named(
    request: Request, read: Callable[[Any], _T], name: str | None = None
) -> tuple[str, _T]:
    """Return name and definition of a request's body; ``name`` is the path's."""

    def split_name(document: dict[str, Any]) -> tuple[str, _T]:
        given = document.pop("name", name)
        if not isinstance(given, str):
            raise InvalidRuleError([{"pointer": "/name", "detail": "this is required"}])
        if name is not None and given != name:
            detail = "name in the body differs from the path's"
            raise InvalidRuleError([{"pointer": "/name", "detail": detail}])
        language.check_name(given)
        return given, read(document)

    return await read_document(request, split_name)


async def read_document(request: Request, read: Callable[[dict[str, Any]], _T]) -> _T:
    """Return what ``read`` makes of the object in a request's body, JSON or YAML.

    Both are done aside: a definition of thousands of values takes a while to check.
    """
    data = await body.read(request, limit=MAX_BYTES, types=body.JSON_TYPES | YAML_TYPES)
    parse = language.parse_yaml if body.media_type(request) in YAML_TYPES else body.parse

    def document() -> _T:
        found = parse(data)
        if not isinstance(found, dict):
            raise InvalidRuleError([{"pointer": "", "detail": "expected an object"}])
        return read(found)

    return await workers.READING.run(document)


async def all_known(context: Context) -> tuple[dict[str, Audience], dict[str, Definition]]:
    """Return what is stored, and every definition by name, the ready ones too."""
    stored = await context.await_bounded(context.of(Definitions).all())
    own = {name: each.definition for name, each in stored.items()}
    index = context.of(AudienceIndex)
    return stored, own | ready(index.categories, index.clusters)


def moment_of(context: Context, as_of: str | None) -> int:
    """Return the moment asked for, now if none is, epoch milliseconds."""
    if as_of is None:
        return context.clock.now_ms()
    try:
        return moment_ms(as_of)
    except ValueError as error:
        raise ProblemError("invalid", str(error), pointer="/query/as_of") from None


def find_definition(name: str, known: dict[str, Definition]) -> Definition:
    """Return a definition, or answer 404."""
    if name not in known:
        raise ProblemError("not-found", f"no audience is named {name}")
    return known[name]
