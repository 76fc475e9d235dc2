"""The export's shape: one document, described member by member; its JSON Schema is made of this.

``complete`` is the last member of the document: a text without it was broken off.
"""

from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter

from feature_repo.profile_views.shapes import Answer, Count, Open, Profile, ProfileConsent
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME, FULL

SCHEMA_PATH: Final = "/v1/schemas/export"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VERSION: Final = 1
_ENTITY: Final = "{p012}6i4sj7afdngnyuee5u5abgyunq"

Moment = Annotated[str, Field(description="RFC 3339, UTC, to the millisecond")]
Pseudonym = Annotated[
    str, Field(pattern=r"^\{p\d{3}\}[a-z2-7]{26}$", description="Keyed hash that stands for an id")
]
Of = Annotated[
    Pseudonym, Field(description="The anonymous id in whose own log it stands; absent: the user's")
]
Applied = Annotated[
    Literal[False],
    Field(description="It could not be applied and counts in no profile: see dead_letters"),
]


class LinkedId(Answer):
    """An anonymous id that became the user's, in whole or in part."""

    pseudonym: Pseudonym
    earlier_events: Annotated[
        bool, Field(description="What it did before it was linked is the user's")
    ]
    present: Annotated[bool, Field(description="What it does now is the user's")]
    claimed: Annotated[bool, Field(description="Only a key of scope write has said so")]


class ExportedIdentity(Answer):
    """Under which names the user is kept."""

    pseudonym: Pseudonym
    id_type: Annotated[
        Literal["user_id", "anonymous_id", "linked_id"],
        Field(
            description="What the id is that it was asked for by: a user's; that of a visitor whom "
            "nobody has named; or an anonymous id that is the user's"
        ),
    ]
    linked: list[LinkedId]


class ConsentStatement(Open):
    """One statement about one purpose, as it was made; the latest one counts."""

    purpose: str
    granted: bool
    at: Annotated[str | None, Field(description="From when it counts")]
    source: str
    expires_at: str | None
    version: Annotated[str | None, Field(description="Of the text that was agreed to")]
    event_id: Annotated[str, Field(description="The event that says so, in events")]
    of: NotRequired[Of]
    applied: NotRequired[Applied]


class StatePart(Answer):
    """A part of the learned state, in words."""

    name: str
    meaning: str
    numbers: Annotated[Count, Field(description="How many numbers it has")]


class RememberedItem(Answer):
    """An item that the learned state remembers."""

    item_id: str
    first_day: Annotated[str, Field(description="Of its first event in the table")]
    last_at: Moment
    counts: Annotated[
        dict[str, float],
        Field(description="How often: in all, and older events counted less, at different rates"),
    ]


class LearnedDescription(Answer):
    """What a model has learned of the user: which, of what, how large, from when."""

    model: Annotated[str, Field(description="Version of the model that made it")]
    size_bytes: Count
    updated_at: Annotated[str, Field(description="Time of the newest event in it")]
    meaning: str
    parts: Annotated[
        list[StatePart] | None, Field(description="null where that model is not in service")
    ]
    vector: Annotated[
        list[float] | None, Field(description="The state's own numbers: carried, h, then c")
    ]
    items: Annotated[list[RememberedItem] | None, Field(description="The table of items")]


class FeatureSnapshots(Answer):
    """Copies of a view's features of earlier days, in files; each follows from the events."""

    rows: Count
    first_at: str | None
    last_at: str | None


class ExportedFeature(Answer):
    """A batch feature in the online store."""

    value: Any
    unit: str
    meaning: Annotated[str, Field(description="How it follows from the events")]


class ExportedView(Answer):
    """A feature view: its newest values, and how many earlier copies there are."""

    as_of: str | None
    values: dict[str, ExportedFeature]
    snapshots: FeatureSnapshots


class ExportedScore(Answer):
    """What a model foretold of the user when audiences were last scored."""

    name: str
    p: Annotated[float, Field(description="Probability, or what puts users in order")]
    as_of: Moment


class ExportedCluster(Answer):
    """The group of similar users that the user was put into."""

    cluster: int
    meaning: Annotated[str | None, Field(description="What sets the group apart")]
    as_of: Moment


class ExportedScores(Answer):
    """What stands in the files of scores."""

    propensities: list[ExportedScore]
    cluster: ExportedCluster | None


class AudienceChange(Answer):
    """The user entered or left a real-time audience; the latest 100,000 of all users are kept."""

    audience: str
    change: Literal["entered", "left"]
    at: Moment
    version: Annotated[Count, Field(description="Of the profile that made it so")]


class ExportedAudiences(Answer):
    """Where the user is a member now, and what is kept of entering and leaving."""

    as_of: Moment
    member_of: list[str]
    changes: list[AudienceChange]


class ExportedDecision(Answer):
    """A decision of a campaign about the user."""

    campaign_id: str
    decision_id: Annotated[str | None, Field(description="null: the one of its campaign")]
    blocked: Annotated[list[str], Field(description="Why no message was sent after all")]
    logged: Annotated[bool, Field(description="Whether its events stand in the log")]
    decision: Annotated[
        dict[str, Any], Field(description="Arm, reasons, score and propensity, as they were kept")
    ]


class ExportedMessage(Answer):
    """A message that a campaign sent, as caps count it."""

    campaign_id: str
    channel: str
    decision_id: str | None
    at: Moment


class ExportedCampaigns(Answer):
    """The ledger: what campaigns decided about the user and sent them."""

    decisions: list[ExportedDecision]
    messages: list[ExportedMessage]


class ExportedItem(Open):
    """A line of an event; what is not known is left out."""

    item_id: str
    quantity: float


class ExportedEvent(Open):
    """An event as it is kept, with everything that the sender said."""

    id: str
    type: str
    time: Annotated[str, Field(description="When it happened")]
    received_at: Annotated[str, Field(description="When it was received")]
    position: Annotated[
        str, Field(pattern=r"^\d+-\d+$", description="Where it stands in its log; 0-… is imported")
    ]
    late: NotRequired[Literal[True]]
    items: NotRequired[list[ExportedItem]]
    key: NotRequired[Annotated[str, Field(description="Scope and id of the key that sent it")]]
    of: NotRequired[Of]
    linked: NotRequired[Annotated[Pseudonym, Field(description="Anonymous id sent beside it")]]
    applied: NotRequired[Applied]


class ExportedLetter(Answer):
    """An event that could not be applied and is kept aside."""

    id: str
    position: str
    reason: str
    event: ExportedEvent | None
    record: Annotated[str | None, Field(description="Base64, where it is no event that decodes")]


class ExportCounts(Answer):
    """How many of what is listed, so that a reader can check it."""

    events: Count
    consent_history: Count
    dead_letters: Count
    decisions: Count
    messages: Count
    audience_changes: Count


class Export(Answer):
    """Everything that is kept of a user; docs/privacy.md says what is not in it, and why."""

    schema: Annotated[Literal["/v1/schemas/export"], Field(description="Where its schema is")]
    schema_version: Literal[1]
    user_id: Annotated[str, Field(description="As it was asked for")]
    exported_at: Moment
    identity: ExportedIdentity
    consents: Annotated[dict[str, ProfileConsent], Field(description="What stands now")]
    profile: Profile
    learned: LearnedDescription | None
    features: Annotated[
        dict[str, ExportedView], Field(description="Batch features by feature view")
    ]
    scores: ExportedScores
    audiences: ExportedAudiences
    campaigns: ExportedCampaigns
    dead_letters: list[ExportedLetter]
    consent_history: Annotated[
        list[ConsentStatement], Field(description="Every statement of the events, oldest first")
    ]
    events: Annotated[list[ExportedEvent], Field(description="In the order of the profile's fold")]
    counts: ExportCounts
    complete: Annotated[
        Literal[True], Field(description="The last member: without it the text was broken off")
    ]


@lru_cache(maxsize=1)
def make_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an export.

    Examples
    --------
    >>> make_schema()["$schema"], make_schema()["properties"]["complete"]["const"]
    ('https://json-schema.org/draft/2020-12/schema', True)
    """
    made = TypeAdapter(Export).json_schema()
    return {"$schema": DIALECT, "$id": SCHEMA_PATH, **made}


_CONSENT = {
    "granted": False, "at": EXAMPLE_TIME, "source": "web", "expires_at": None, "version": None,
}  # fmt: skip
_EXAMPLE: Final[dict[str, Any]] = {
    "schema": SCHEMA_PATH, "schema_version": VERSION, "user_id": "123",
    "exported_at": EXAMPLE_TIME,
    "identity": {"pseudonym": _ENTITY, "id_type": "user_id", "linked": []},
    "consents": {"ads": _CONSENT}, "profile": FULL, "learned": None, "features": {},
    "scores": {"propensities": [], "cluster": None},
    "audiences": {"as_of": EXAMPLE_TIME, "member_of": ["ready-lifecycle-visitor"], "changes": []},
    "campaigns": {"decisions": [], "messages": []},
    "dead_letters": [],
    "consent_history": [{"purpose": "ads", **_CONSENT, "event_id": "e-2"}],
    "events": [
        {"id": "e-1", "type": "view_item", "time": EXAMPLE_TIME,
         "items": [{"item_id": "A", "quantity": 1.0, "category": "Grocery/Coffee", "brand": "Ox",
                    "price": 3.5}],
         "channel": "web", "key": "server:1a2b3c4d5e6f", "received_at": EXAMPLE_TIME,
         "position": "1795737846570-0"},
        {"id": "e-2", "type": "consent_updated", "time": EXAMPLE_TIME, "source": "web",
         "consent": {"ads": False}, "received_at": EXAMPLE_TIME, "position": "1795737846571-0"},
    ],
    "counts": {"events": 2, "consent_history": 1, "dead_letters": 0, "decisions": 0,
               "messages": 0, "audience_changes": 0},
    "complete": True,
}  # fmt: skip
EXPORTED: Final[dict[int | str, Any]] = {
    200: describe_answer(Export, "All of it, written as it is read", _EXAMPLE)
}
EXPORT_SCHEMA: Final[dict[int | str, Any]] = {
    200: describe_answer(dict[str, Any], "JSON Schema of an export", {"title": "Export"})
}
