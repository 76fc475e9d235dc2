"""Requests about campaigns: shared parameters, the body of a decision, its moment."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import Path, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from feature_repo.audiences.language import check_name
from feature_repo.errors import InvalidRuleError
from feature_repo.events.fields import Person, check_tz, parse_time
from feature_repo.events.schema import DEDUP_WINDOW_MS, MAX_FUTURE_MS
from services.audiences.requests import read_document
from services.campaigns import language
from services.campaigns.campaign import Campaign
from services.campaigns.eligibility import Eligibility
from services.context.context import Context
from services.http.problems import ProblemError

MAX_PAGE: Final = 1000

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", max_length=64)]


class DecideRequest(BaseModel):
    """Whom to decide about."""

    model_config = ConfigDict(extra="forbid")

    user_id: Person
    decision_id: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._:-]{1,128}$",
            description="A name under which the answer is kept, whatever it is; left out: the one "
            "decision of the campaign about this user, kept once it is treated or control",
        ),
    ] = None
    time: Annotated[
        int | None,
        BeforeValidator(lambda value: None if value is None else parse_time(value)),
        Field(
            description="RFC 3339 with offset, or epoch seconds or milliseconds; default: now",
            json_schema_extra={"type": ["string", "number", "null"]},
        ),
    ] = None
    tz: Annotated[
        str | None,
        Field(max_length=64, description="IANA time zone of the user, if it is known"),
        AfterValidator(lambda value: None if value is None else check_tz(value)),
    ] = None


async def read_campaign(request: Request, name: str | None = None) -> tuple[str, Campaign]:
    """Return name and campaign of a request's body; ``name`` is the path's.

    Raises
    ------
    InvalidRuleError
        Whose ``errors`` point at everything that is wrong.
    """
    return await read_document(request, partial(_read_named, name=name))


def _read_named(document: dict[str, Any], name: str | None) -> tuple[str, Campaign]:
    given: Any = document.pop("name", name)
    if not isinstance(given, str):
        raise InvalidRuleError([{"pointer": "/name", "detail": "this is required"}])
    check_name(given)
    if name is not None and given != name:
        detail = "name in the body differs from the path's"
        raise InvalidRuleError([{"pointer": "/name", "detail": detail}])
    return given, language.read(document)


async def check_audience(context: Context, campaign: Campaign) -> None:
    """Refuse a campaign whose audience is not there.

    Raises
    ------
    InvalidRuleError
    """
    if campaign.audience not in await context.await_bounded(context.of(Eligibility).definitions()):
        detail = f"no audience is named {campaign.audience}"
        raise InvalidRuleError([{"pointer": "/audience", "detail": detail}])


def moment_of(context: Context, time_ms: int | None) -> int:
    """Return the moment of a decision, epoch milliseconds; bounded as an event's time is.

    Raises
    ------
    ProblemError
        422 for one too far ahead or too long ago.
    """
    if context.clock.replay:
        if time_ms is not None:
            context.clock.show(time_ms)
        return context.clock.now_ms() if time_ms is None else time_ms
    now_ms = context.clock.now_ms()
    if time_ms is None or now_ms - DEDUP_WINDOW_MS <= time_ms <= now_ms + MAX_FUTURE_MS:
        return now_ms if time_ms is None else time_ms
    detail = "time must lie between 72 hours ago and five minutes ahead"
    raise ProblemError("invalid", detail, errors=[{"pointer": "/time", "detail": detail}])
