"""Requests about campaigns: shared parameters, the body of a decision, its moment."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from feature_repo.errors import InvalidRuleError
from feature_repo.events.fields import UserId, check_tz, parse_time
from feature_repo.events.schema import DEDUP_WINDOW_MS, MAX_FUTURE_MS
from services.campaigns.campaign import Campaign
from services.campaigns.eligibility import Eligibility
from services.context.context import Context
from services.http.problems import ProblemError

MAX_PAGE: Final = 1000


class DecideRequest(BaseModel):
    """Whom to decide about."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
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


async def check_audience(context: Context, campaign: Campaign) -> None:
    """Raise `InvalidRuleError` for a campaign whose audience is not there."""
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
    raise ProblemError("invalid", detail, pointer="/time")
