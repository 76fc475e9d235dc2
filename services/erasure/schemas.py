"""Answers of erasures, for the API's description; see `answer_schemas`."""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field

from feature_repo.profile_views.shapes import Answer, Count
from services.http.answer_schemas import describe_answer
from services.http.profile_schemas import EXAMPLE_TIME

ERASURE_ID: Final = "er-1795737846570-9f86d081"


class ErasureBegun(Answer):
    """An erasure that is durable: from now on the users are refused everywhere."""

    erasure_id: str
    status: Literal["pending"]


class ErasedFrom(Answer):
    """What was found and removed in one place."""

    store: Annotated[str, Field(description="The place")]
    found: Count
    removed: Count
    waits_until: NotRequired[Annotated[str, Field(description="When what is left goes by itself")]]
    note: NotRequired[str]


class ErasureReceipt(Answer):
    """An erasure and its receipt."""

    erasure_id: str
    status: Literal["pending", "done"]
    requested_at: str
    done_at: str | None
    suppress: bool
    users: Annotated[Count, Field(description="Ids that were named")]
    linked: Annotated[Count, Field(description="Anonymous ids found to be theirs")]
    together: Annotated[
        Count, Field(description="Erasures carried out at once; stores count all of theirs")
    ]
    stores: list[ErasedFrom]
    models: Annotated[
        list[str], Field(description="Models made before it was done: trained with earlier data")
    ]


class ErasureHead(Answer):
    """An erasure without its receipt."""

    erasure_id: str
    status: Literal["pending", "done"]
    requested_at: str
    done_at: str | None
    users: Count


class ErasureList(Answer):
    """Erasures, the latest first."""

    erasures: list[ErasureHead]
    next_cursor: str | None


_HEAD: Final[dict[str, Any]] = {
    "erasure_id": ERASURE_ID, "status": "done", "requested_at": EXAMPLE_TIME,
    "done_at": EXAMPLE_TIME, "users": 1,
}  # fmt: skip
BEGUN: Final[dict[int | str, Any]] = {
    202: describe_answer(
        ErasureBegun, "Durable: from now on the users are refused",
        {"erasure_id": ERASURE_ID, "status": "pending"},
    ),
}  # fmt: skip
RECEIPT: Final[dict[int | str, Any]] = {
    200: describe_answer(
        ErasureReceipt, "How far it is, and what was found where",
        {**_HEAD, "suppress": True, "linked": 1, "together": 1, "models": [],
         "stores": [{"store": "rows", "found": 2, "removed": 2}]},
    ),
}  # fmt: skip
ERASURES: Final[dict[int | str, Any]] = {
    200: describe_answer(
        ErasureList, "The erasures, the latest first", {"erasures": [_HEAD], "next_cursor": None}
    ),
}
