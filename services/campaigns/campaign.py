"""Campaigns: their parts, with bounds and meaning.

Belongs here: the object. Reading a document is `language`'s, what follows for a user `decision`'s.
"""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from feature_repo.audiences.rules import Slug
from feature_repo.audiences.values import Duration, Moment, Node, duration_ms, moment_ms
from feature_repo.events.fields import Amount, check_tz

MAX_CAPS: Final = 10
MAX_CAP_DAYS: Final = 90
_DAY_MS: Final = 86_400_000
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Channel = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
RankBy = Literal["propensity", "uplift", "random"]


def minute_of(clock: str) -> int:
    """Return a time of day such as ``21:30`` in minutes since midnight.

    Examples
    --------
    >>> minute_of("21:30")
    1290
    """
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f"{clock[:20]!r} is not a time of day such as 21:30")
    return int(match[1]) * 60 + int(match[2])


def _clock(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    whole = f"0{value}" if re.fullmatch(r"\d:\d\d", value) else value  # 8:00 as well as 08:00
    minute_of(whole)
    return whole


Clock = Annotated[
    str, BeforeValidator(_clock), Field(description="A time of day such as 21:30", max_length=5)
]
Zone = Annotated[str, StringConstraints(max_length=64), AfterValidator(check_tz)]


class Offer(Node):
    """What the treated get. ``cost`` is what one message takes from the budget's amount."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    cost: Amount = 0.0


class Window(Node):
    """When the campaign runs: from a moment on, until before another."""

    from_: Moment = Field(alias="from")
    until: Moment

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until_ms <= self.from_ms:
            raise ValueError("until must be after from")
        return self

    @property
    def from_ms(self) -> int:
        """Beginning, epoch milliseconds."""
        return moment_ms(self.from_)

    @property
    def until_ms(self) -> int:
        """End, not included, epoch milliseconds."""
        return moment_ms(self.until)


class Goal(Node):
    """What counts as success: an event of this type ``within`` so long after the decision.

    ``before`` is how far the spending reaches back that sharpens the report's intervals.
    """

    event: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "purchase"
    within: Duration = "7d"
    before: Duration = "28d"


class Control(Node):
    """Who is held out, by hash (`assignment`): a share of the audience, and the global hold-out.

    Attributes
    ----------
    holdout
        Share of the audience that gets nothing of this campaign.
    salt
        Of the hash; the campaign's name where it is left out.
    global_holdout
        Whether users of the service's global hold-out are left out as well.
    """

    holdout: Annotated[float, Field(ge=0, le=0.9, allow_inf_nan=False)] = 0.1
    salt: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    global_holdout: bool = True


class Cap(Node):
    """At most so many messages to one user in any span of that length.

    ``scope``: messages of this campaign, of all campaigns on this channel, or of all campaigns.
    """

    scope: Literal["campaign", "channel", "all"] = "campaign"
    most: Annotated[int, Field(ge=1, le=1000)]
    within: Duration

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.within_ms > MAX_CAP_DAYS * _DAY_MS:
            raise ValueError(f"within is {self.within}: at most {MAX_CAP_DAYS}d")
        return self

    @property
    def within_ms(self) -> int:
        """Length of the span, milliseconds."""
        return duration_ms(self.within)


class QuietHours(Node):
    """Hours in which nobody is written to, in the user's time zone; may span midnight.

    ``tz`` stands in for a user of whom no time zone is known.
    """

    from_: Clock = Field(alias="from")
    until: Clock
    tz: Zone = "UTC"

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.from_ == self.until:
            raise ValueError("from and until are the same: quiet hours need a length")
        return self


class Budget(Node):
    """What the campaign may spend in all: messages, an amount (`Offer.cost` each), or both."""

    messages: Annotated[int, Field(ge=0, le=10**12)] | None = None
    amount: Amount | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.messages is None and self.amount is None:
            raise ValueError("a bound is missing: give messages or amount")
        return self


class Campaign(Node):
    """An offer to an audience over a channel, for a while, with a control group.

    Attributes
    ----------
    audience
        Name of a stored audience. Its consent and the consent for ``channel`` must be granted.
    rank_by
        What orders the audience: the probability of a purchase, the uplift of the offer, or a hash.
    top
        Per cent of the audience, the highest by ``rank_by``, that is chosen.
    explore
        Share of the users whom a coin chooses in place of their rank.
    active
        False stops the campaign at once.
    """

    title: Annotated[str, StringConstraints(max_length=200)] = ""
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    audience: Slug
    offer: Offer
    channel: Channel
    window: Window
    goal: Goal = Goal()
    control: Control = Control()
    caps: Annotated[list[Cap], Field(max_length=MAX_CAPS)] = Field(default=[])
    quiet_hours: QuietHours | None = None
    budget: Budget | None = None
    rank_by: RankBy = "random"
    top: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 100.0
    explore: Share = 0.0
    active: bool = True

    @property
    def score(self) -> str | None:
        """Name of the score that ``rank_by`` asks of a user; None for random."""
        names = {"propensity": "purchase_7d", "uplift": f"uplift:{self.offer.id}"}
        return names.get(self.rank_by)
