"""Answers of audiences, for the API's description; see `answer_schemas`."""

from typing import Annotated, Any, Final, NotRequired

from pydantic import Field

from feature_repo.audiences.plan import Mode, Plan
from feature_repo.audiences.traits import TraitType
from feature_repo.profile_views.shapes import Answer, Count
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME

PSEUDONYM: Final = "{p014}mfzwizltoq2gk3tbnzxxezltfo"
RULE: Final = {"event": {"type": "purchase", "count": {"gte": 3}, "within": "28d"}}
DEFINITION: Final = {"title": "Regulars", "rule": RULE, "consent": ["email"]}


class AudienceHead(Answer):
    """An audience without its rule; times are null where it is a ready one."""

    name: str
    title: str
    ready: bool
    mode: Mode
    consent: list[str]
    contactable: bool
    created_at: str | None
    updated_at: str | None


class AudienceDetail(AudienceHead):
    """An audience."""

    description: NotRequired[Annotated[str, Field(default="")]]
    rule: dict[str, Any]
    exclude: NotRequired[list[dict[str, Any]]]
    plan: Plan


class AudienceList(Answer):
    """All audiences, the shop's own first."""

    audiences: list[AudienceHead]


class AudienceTrait(Answer):
    """A trait that rules may name."""

    name: str
    kind: TraitType
    meaning: str
    values: list[str]
    realtime: bool


class AudienceTraits(Answer):
    """All traits."""

    traits: list[AudienceTrait]


class AskedOf(Answer):
    """The events that an answer goes by."""

    events: Count
    newest_event: str | None


class Preview(Answer):
    """How many members, of how many users, and how soon that was found."""

    count: Count | None
    users: Count
    took_ms: Annotated[float, Field(ge=0)]
    as_of: str
    contactable: bool
    plan: Plan
    data: AskedOf


class Members(Answer):
    """A page of members, sorted."""

    members: list[str]
    next_cursor: str | None


class OverlapPair(Answer):
    """What two audiences share."""

    a: str
    b: str
    both: Count | None
    either: Count | None
    jaccard: Annotated[float, Field(ge=0, le=1)] | None


class Overlap(Answer):
    """Sizes, and what every two share."""

    as_of: str
    counts: dict[str, Count | None]
    pairs: list[OverlapPair]


_PLAN: Final = {"mode": "realtime", "reasons": [], "time_passes": True}
_HEAD: Final = {
    "name": "regulars", "title": "Regulars", "ready": False, "mode": "realtime",
    "consent": ["email"], "contactable": True, "created_at": EXAMPLE_TIME,
    "updated_at": EXAMPLE_TIME,
}  # fmt: skip
_SHOWN: Final = _HEAD | {"rule": RULE, "plan": _PLAN}
_PREVIEW: Final = {
    "count": 31, "users": 2469, "took_ms": 4.2, "as_of": EXAMPLE_TIME, "contactable": True,
    "plan": _PLAN, "data": {"events": 143806, "newest_event": EXAMPLE_TIME},
}  # fmt: skip

LIST: Final[dict[int | str, Any]] = {
    200: describe_answer(AudienceList, "All audiences", {"audiences": [_HEAD]})
}
SHOWN: Final[dict[int | str, Any]] = {200: describe_answer(AudienceDetail, "The audience", _SHOWN)}
CREATED: Final[dict[int | str, Any]] = {201: describe_answer(AudienceDetail, "Created", _SHOWN)}
PUT: Final[dict[int | str, Any]] = {
    **CREATED,
    200: describe_answer(AudienceDetail, "Replaced", _SHOWN),
}
SCHEMA: Final[dict[int | str, Any]] = {
    200: describe_answer(dict[str, Any], "JSON Schema of a definition", {"title": "Definition"})
}
TRAITS: Final[dict[int | str, Any]] = {
    200: describe_answer(AudienceTraits, "Traits", {"traits": [
        {"name": "lifecycle.stage", "kind": "text",
         "meaning": "recency against the user's own gap between orders",
         "values": ["visitor", "new", "active", "at_risk", "lapsed"], "realtime": True}]})
}  # fmt: skip
PREVIEW: Final[dict[int | str, Any]] = {200: describe_answer(Preview, "How many", _PREVIEW)}
MEMBERS: Final[dict[int | str, Any]] = {
    200: describe_answer(
        Members, "A page of users' pseudonyms", {"members": [PSEUDONYM], "next_cursor": None}
    )
}
EXPORT: Final[dict[int | str, Any]] = {
    200: {"description": "Pseudonyms, one a line below `user`",
          "content": {"text/csv": {"schema": {"type": "string"},
                                   "example": f"user\r\n{PSEUDONYM}\r\n"}}}
}  # fmt: skip
OVERLAP: Final[dict[int | str, Any]] = {
    200: describe_answer(Overlap, "Sizes and what is shared", {
        "as_of": EXAMPLE_TIME, "counts": {"a": 10, "b": 4},
        "pairs": [{"a": "a", "b": "b", "both": 2, "either": 12, "jaccard": 0.166667}]})
}  # fmt: skip
CHANGES: Final[dict[int | str, Any]] = {
    200: {"description": "Server-sent events `entered` and `left`",
          "content": {"text/event-stream": {
              "schema": {"type": "string"},
              "example": 'retry: 1000\n\nid: 1795737846570-0\nevent: entered\ndata: '
              '{"audience":"regulars","user":"' + PSEUDONYM + '","at":"' + EXAMPLE_TIME
              + '","version":7}\n\n'}}}
}  # fmt: skip


SLUG: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}


def describe_body(
    example: dict[str, Any], yaml: str, path: str, required: list[str], properties: dict[str, Any]
) -> dict[str, Any]:
    """Return the description of a definition's body; its whole schema is served below ``path``."""
    schema = {
        "type": "object",
        "description": f"Whole schema: `GET {path}/schema`",
        "required": required,
        "properties": {"name": SLUG, **properties},
    }
    content = {
        "application/json": {"schema": schema, "example": example},
        "application/yaml": {"schema": {"type": "string"}, "example": yaml},
    }
    return {"requestBody": {"required": True, "content": content}}


def body(*, named: bool = False) -> dict[str, Any]:
    """Return the description of a body that holds an audience, ``named`` in it or not."""
    yaml = "rule: {event: {type: purchase, count: {gte: 3}, within: 28d}}\nconsent: [email]\n"
    return describe_body(
        {"name": "regulars", **DEFINITION} if named else DEFINITION,
        f"name: regulars\n{yaml}" if named else yaml,
        "/v1/audiences",
        [*(["name"] if named else []), "rule", "consent"],
        {
            "title": {"type": "string", "maxLength": 200},
            "description": {"type": "string", "maxLength": 2000},
            "rule": {"type": "object"},
            "consent": {"type": "array", "items": {"type": "string"}, "maxItems": 32},
            "exclude": {"type": "array", "items": {"type": "object"}},
        },
    )
