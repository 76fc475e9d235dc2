"""The tree that a rule is: its nodes, their fields and what each of them means.

A node is an object with one key: ``all``, ``any`` and ``not`` hold nodes, the other keys are
leaves. A leaf is true or false of every user who has at least one event; where a leaf asks
for a value that is not known, it is false, and ``not`` of it true. Belongs here: the nodes
and the definition around them. What leaves ask is `leaves`', reading a document and saying
where it is wrong `language`'s, finding the users `compiler`'s and `live`'s.
"""

from typing import Annotated, Any, Final

from pydantic import Discriminator, Field, StringConstraints, Tag
from pydantic import field_validator as on_field

from feature_repo.audiences.leaves import EventTest, ScoreTest, SequenceTest, TraitTest
from feature_repo.audiences.values import Node
from feature_repo.events.fields import Id
from feature_repo.events.pseudonyms import PSEUDONYM_LENGTH, partition_of

MAX_MEMBERS: Final = 10_000
MAX_CHILDREN: Final = 50

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class All(Node):
    """Users of whom every node is true."""

    all: Annotated[list["Rule"], Field(min_length=1, max_length=MAX_CHILDREN)]


class AnyOf(Node):
    """Users of whom at least one node is true."""

    any: Annotated[list["Rule"], Field(min_length=1, max_length=MAX_CHILDREN)]


class Not(Node):
    """Users of whom a node is not true."""

    not_: "Rule" = Field(alias="not")


class HasTrait(Node):
    """See `TraitTest`."""

    trait: TraitTest


class HasEvent(Node):
    """See `EventTest`."""

    event: EventTest


class HasSequence(Node):
    """See `SequenceTest`."""

    sequence: SequenceTest


class HasScore(Node):
    """See `ScoreTest`."""

    score: ScoreTest


class InAudience(Node):
    """Members of another audience, its consent and exclusions included."""

    audience: Slug


class IsUser(Node):
    """Single users by the shop's own ids; stored as pseudonyms (`IsPseudonym`)."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_MEMBERS)]


class IsPseudonym(Node):
    """Single users by pseudonym (``portrait key``)."""

    entities: Annotated[list[str], Field(min_length=1, max_length=MAX_MEMBERS)]

    @on_field("entities")
    @classmethod
    def _check_form(cls, value: list[str]) -> list[str]:
        for pseudonym in value:
            if len(pseudonym) != PSEUDONYM_LENGTH:
                raise ValueError(f"{pseudonym[:40]!r} is not a pseudonym: see portrait key")
            partition_of(pseudonym)
        return value


_NODES: Final[dict[str, type[Node]]] = {
    "all": All, "any": AnyOf, "not": Not, "trait": HasTrait, "event": HasEvent,
    "sequence": HasSequence, "score": HasScore, "audience": InAudience, "user_ids": IsUser,
    "entities": IsPseudonym,
}  # fmt: skip


def _key(value: Any) -> str | None:
    if isinstance(value, Node):
        return next((key for key, node in _NODES.items() if type(value) is node), None)
    if isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        return key if key in _NODES else None
    return None


Rule = Annotated[
    Annotated[All, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[HasTrait, Tag("trait")]
    | Annotated[HasEvent, Tag("event")]
    | Annotated[HasSequence, Tag("sequence")]
    | Annotated[HasScore, Tag("score")]
    | Annotated[InAudience, Tag("audience")]
    | Annotated[IsUser, Tag("user_ids")]
    | Annotated[IsPseudonym, Tag("entities")],
    Discriminator(
        _key,
        custom_error_type="rule_key",
        custom_error_message=f"a rule is an object with one key of {', '.join(_NODES)}",
    ),
]


class Definition(Node):
    """An audience: whom a rule describes, of those who allow it and are not left out.

    Attributes
    ----------
    consent
        Purposes that a member must have granted, all of them, whatever the rule says. An
        empty list is for analysis: such an audience is not to be contacted.
    exclude
        Nodes that no member may satisfy, such as too many messages of late.
    """

    title: Annotated[str, StringConstraints(max_length=200)] = ""
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    rule: Rule
    consent: Annotated[list[Id], Field(max_length=32)]
    exclude: Annotated[list[Rule], Field(max_length=MAX_CHILDREN)] = Field(default=[])
