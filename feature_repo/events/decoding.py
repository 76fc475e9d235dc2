"""The quick way in for events that are plainly valid; the schema stays `events.Event`.

The structs that msgspec decodes into are made from the Pydantic models, field by field with
their bounds, so there is nothing to keep in step by hand. What they accept, Pydantic accepts
and reads as the same; of what they do not accept, nothing is said here: ask Pydantic, which
may still take it, and whose messages are the service's.
"""

from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

import annotated_types
import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, StringConstraints
from pydantic.fields import FieldInfo

from feature_repo.events.fields import check_properties, check_tz, parse_time
from feature_repo.events.placeholder_ids import check_user_id
from feature_repo.events.schema import Event, missing

_PLAIN: Final = frozenset({str, int, float, bool, NoneType, Any})
_BOUNDS: Final = {
    annotated_types.Ge: "ge", annotated_types.Gt: "gt", annotated_types.Le: "le",
    annotated_types.Lt: "lt", annotated_types.MaxLen: "max_length",
    annotated_types.MinLen: "min_length",
}  # fmt: skip


def decode_event(document: bytes) -> Event | None:
    """Return the event of a JSON document, or None where Pydantic has to be asked.

    Parameters
    ----------
    document
        One JSON object.

    Returns
    -------
    Event or None
        An object with the attributes of a validated `Event`, though not of its class: for
        `feature_repo.events.schema.to_record`, which reads attributes and no more.

    Examples
    --------
    >>> decode_event(b'{"type":"login","user_id":"7"}').user_id
    '7'
    >>> decode_event(b'{"type":"login"}') is None
    True
    """
    try:
        draft: Any = _decoder().decode(document)
        for user_id in (draft.user_id, draft.anonymous_id):
            if user_id is not None:
                check_user_id(user_id)
        if draft.time is not None:
            draft.time = parse_time(draft.time)
        if draft.tz is not None:
            check_tz(draft.tz)
        if draft.properties is not None:
            draft.properties = check_properties(draft.properties)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    event = cast("Event", draft)
    return None if missing(event) is not None else event


@lru_cache(maxsize=1)
def _decoder() -> Any:
    return msgspec.json.Decoder(_struct(Event))


@lru_cache(maxsize=8)
def _struct(model: type[BaseModel]) -> type[msgspec.Struct]:
    """Return a struct with the fields, types, bounds and defaults of a Pydantic model."""
    fields = list[Any]()
    for name, info in model.model_fields.items():
        field_type = _to_msgspec(Annotated[(info.annotation, *info.metadata)] if info.metadata else
                     info.annotation)  # fmt: skip
        fields.append(
            (name, field_type) if info.is_required() else (name, field_type, info.default)
        )
    return msgspec.defstruct(
        f"{model.__name__}Draft", fields, kw_only=True, forbid_unknown_fields=True, gc=False
    )


def _to_msgspec(annotation: Any) -> Any:
    """Return msgspec's form of a field's annotation."""
    if annotation in _PLAIN:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _struct(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _to_type(arguments[0], annotation.__metadata__)
    types = tuple(map(_to_msgspec, arguments))
    if origin in (Union, UnionType):
        return Union[types]  # noqa: UP007 - made at run time
    if origin is list:
        return list[types[0]]  # type: ignore[valid-type]
    if origin is dict:
        return dict[types[0], types[1]]  # type: ignore[valid-type]
    raise TypeError(f"{annotation} has no quick form yet: add it to {__name__}")


def _to_type(annotation: Any, metadata: tuple[Any, ...]) -> Any:
    bounds = dict[str, Any]()
    for each in metadata:
        if isinstance(each, BeforeValidator) and each.func is parse_time:
            return int | float | str  # `decode_event` goes on from there
        if isinstance(each, AfterValidator) and each.func is check_user_id:
            continue  # `decode_event` asks it
        for one in each.metadata if isinstance(each, FieldInfo) else (each,):
            bounds |= _bound(one)
    field_type = _to_msgspec(annotation)
    return Annotated[field_type, msgspec.Meta(**bounds)] if bounds else field_type


def _bound(one: Any) -> dict[str, Any]:
    if isinstance(one, StringConstraints):
        given = {"min_length": one.min_length, "max_length": one.max_length}
        if one.pattern is not None:
            # In Python "$" also matches before a last line feed; in Pydantic's Rust it does not.
            given["pattern"] = str(one.pattern).replace("$", r"\Z")  # type: ignore[assignment]
        return {name: bound for name, bound in given.items() if bound is not None}
    if type(one) in _BOUNDS:
        name = _BOUNDS[type(one)]
        return {name: getattr(one, name)}
    if type(one).__name__ == "AllowInfNan":  # JSON has no such numbers and msgspec takes none
        return {}
    raise TypeError(f"the bound {one!r} has no quick form yet: add it to {__name__}")
