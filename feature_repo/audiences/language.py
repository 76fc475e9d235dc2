"""From a document in JSON or YAML to a `Definition`, or to what is wrong with it and where.

Belongs here: reading, bounds on the whole document, JSON pointers, the JSON Schema, and what
a rule may not rest on. The nodes themselves are `rules`'.
"""

from typing import Any, Final, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from feature_repo.audiences import plain_yaml, rules
from feature_repo.audiences.traits import OVERDUE
from feature_repo.audiences.values import Node
from feature_repo.errors import InvalidRuleError
from feature_repo.events.pseudonyms import Pseudonyms
from feature_repo.events.schema import pointer

MAX_DEPTH: Final = 40
"""Levels of objects and lists in a definition; a rule takes two a level."""
MAX_VALUES: Final = 20_000

_NAME: Final = TypeAdapter[str](rules.Slug)
_N = TypeVar("_N", bound=Node)


def read(document: Any) -> rules.Definition:
    """Return the audience that a parsed JSON or YAML document describes.

    Raises
    ------
    InvalidRuleError
        Whose ``errors`` point at every node that is wrong.

    Examples
    --------
    >>> document = {"rule": {"event": {"type": "purchase", "count": {"gte": 3}}}, "consent": []}
    >>> read(document).rule.event.count.gte
    3.0
    """
    definition = check_document(rules.Definition, document)
    if _rests_on_overdue(definition.rule):
        raise InvalidRuleError(
            [
                {
                    "pointer": "/rule",
                    "detail": f"{OVERDUE} alone targets nobody: being overdue predicts a purchase "
                    "worse than chance; add a condition under all",
                }
            ]
        )
    return definition


def check_document(schema: type[_N], document: Any) -> _N:
    """Return a parsed document as ``schema``; `InvalidRuleError` with all that is wrong."""
    plain = _plain(document)
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        raise InvalidRuleError(
            [
                {"pointer": _pointer_of(plain, each), "detail": _detail(each)}
                for each in error.errors(include_url=False, include_context=False)
            ]
        ) from None


def read_text(text: str | bytes) -> rules.Definition:
    """Return the audience that a YAML or JSON text describes; see `parse_yaml` and `read`."""
    return read(parse_yaml(text))


def parse_yaml(text: str | bytes) -> Any:
    """Return what a YAML or JSON text holds, or raise `InvalidRuleError`; see `plain_yaml.read`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return plain_yaml.read(text, max_depth=MAX_DEPTH, max_values=MAX_VALUES)


def check_name(name: str) -> None:
    """Raise `InvalidRuleError` for what cannot be the name of an audience.

    Examples
    --------
    >>> check_name("tea-drinkers")
    """
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        detail = str(error.errors()[0]["msg"])
        raise InvalidRuleError([{"pointer": "/name", "detail": detail}]) from None


def to_document(definition: rules.Definition) -> dict[str, Any]:
    """Return a definition as a JSON document; `read` of it gives the same definition."""
    return definition.model_dump(mode="json", by_alias=True, exclude_unset=True)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a definition."""
    return rules.Definition.model_json_schema(by_alias=True)


def pseudonymous(definition: rules.Definition, pseudonyms: Pseudonyms) -> rules.Definition:
    """Return the definition with ``user_ids`` replaced by ``entities``: as it may be stored."""

    def turn(value: Any) -> Any:
        if isinstance(value, dict):
            if list(value) == ["user_ids"]:
                return {"entities": [pseudonyms.of_user(user) for user in value["user_ids"]]}
            return {key: turn(each) for key, each in value.items()}
        return [turn(each) for each in value] if isinstance(value, list) else value

    return rules.Definition.model_validate(turn(to_document(definition)))


def _rests_on_overdue(node: Any, *, negated: bool = False) -> bool:
    """Say whether some way to satisfy a node asks of nothing but `OVERDUE`."""
    if isinstance(node, rules.Not):
        return _rests_on_overdue(node.not_, negated=not negated)
    if isinstance(node, rules.All | rules.AnyOf):
        children = node.all if isinstance(node, rules.All) else node.any
        every = isinstance(node, rules.All) != negated
        found = (_rests_on_overdue(child, negated=negated) for child in children)
        return all(found) if every else any(found)
    return isinstance(node, rules.HasTrait) and node.trait.name == OVERDUE


def _plain(document: Any) -> Any:
    """Return a bounded copy; an alias is copied out."""
    count = 0

    def copy_value(value: Any, path: tuple[int | str, ...]) -> Any:
        nonlocal count
        count += 1
        if count > MAX_VALUES or len(path) > MAX_DEPTH:
            bound = f"{MAX_VALUES:,} values" if count > MAX_VALUES else f"{MAX_DEPTH} levels"
            raise InvalidRuleError(
                [{"pointer": pointer(path), "detail": f"the definition is over {bound}"}]
            )
        if isinstance(value, dict):
            return {str(key): copy_value(each, (*path, str(key))) for key, each in value.items()}
        if isinstance(value, list):
            return [copy_value(each, (*path, index)) for index, each in enumerate(value)]
        return value

    return copy_value(document, ())


def _pointer_of(document: Any, error: Any) -> str:
    """Return the pointer of a Pydantic error, without the tags of unions that its path holds."""
    path, here = list[int | str](), document
    location = error["loc"]
    for index, part in enumerate(location):
        within = (
            part in here
            if isinstance(here, dict)
            else isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if within:
            here = here[part]
        elif not (error["type"] == "missing" and index == len(location) - 1):
            continue
        path.append(part)
    return pointer(tuple(path))


def _detail(error: Any) -> str:
    if error["type"] in _DETAILS:
        return _DETAILS[error["type"]]
    return str(error["msg"]).removeprefix("Value error, ")


_DETAILS: Final = {
    "model_type": "expected an object",
    "missing": "this is required",
    "extra_forbidden": "there is no such key here",
}
