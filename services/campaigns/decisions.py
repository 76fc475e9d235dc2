"""Deciding: what a campaign does about one user, once, and its events in the log.

The order of steps makes a decision safe to repeat: what was decided is kept in one step that
also spends (`ledger`), then its events are appended under ids that follow from the
decision, then it is marked as logged. Whoever repeats a decision that was cut off in between
completes it. Belongs here: those steps. The reasons are `services.campaigns.decision`'s.
"""

from dataclasses import dataclass, replace
from typing import Any

from feature_repo.audiences.live import User
from feature_repo.errors import ConflictError
from feature_repo.events.pseudonyms import partition_of
from feature_repo.events.schema import iso
from feature_repo.online.live_row import LiveState
from services.campaigns import decision
from services.campaigns.decision import Reason, UserFacts
from services.campaigns.definitions import Campaigns, Stored
from services.campaigns.eligibility import Eligibility
from services.campaigns.events import DecisionRequest, body_of, records
from services.campaigns.ledger import Ledger, Settled, Spent, Wanted
from services.campaigns.schemas import Decision
from services.campaigns.scores import score_of
from services.context import users
from services.context.context import Context
from services.event_log.append import Appender
from services.event_log.keys import erased_key
from services.history.recent_events import last_tz
from services.http.problems import ERASED, ProblemError
from services.recommend.request_context import SERVICE
from services.recommend.serving import ServedModels


@dataclass(frozen=True, slots=True)
class _KnownUser:
    """Who is asked about."""

    pseudonym: str
    row: LiveState
    features: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it is answered, and whether it had been made before."""

    answer: Decision
    repeated: bool


async def decide(context: Context, name: str, request: DecisionRequest) -> Decided:
    """Decide about a user, or return what was decided.

    Raises
    ------
    NotFoundError
        If there is no such campaign.
    ProblemError
        410 for a user who was erased, 422 if nobody has the score that the campaign ranks by.
    ConflictError
        If the campaign has to be ranked first, or its audience is gone.
    StoreUnavailableError
        Repeat the request: what was decided is kept.
    """
    stored = await context.await_bounded(context.of(Campaigns).get(name))
    user = await _find_user(context, request)
    if user is None:
        shut = decision.closed_reason(stored.campaign, request.now_ms)
        reasons = ([shut] if shut else []) + ["unknown_user"]
        return _refuse(stored, request, reasons)
    kept, logged = await context.await_bounded(
        context.of(Ledger).read(name, user.pseudonym, request.name)
    )
    if kept is not None and not logged:
        await _log(context, stored, user, _whole(kept))
        await context.await_bounded(
            context.of(Ledger).mark_logged(name, user.pseudonym, request.name)
        )
    facts = await _facts(context, stored, user, request)
    gates = _gates(stored, facts)
    if kept is not None and gates is None:
        return Decided(_answer(stored, request, _whole(kept)), repeated=True)
    if gates is not None and kept is not None:
        return _refuse(stored, request, [gates])
    return await _settle(context, stored, user, request, facts)


def _refuse(stored: Stored, request: DecisionRequest, reasons: list[Reason]) -> Decided:
    """Return what is answered where nothing is decided."""
    body = body_of(stored, request, None, reasons)
    return Decided(_answer(stored, request, body), repeated=False)


def _gates(stored: Stored, facts: UserFacts) -> Reason | None:
    """Return what stops even a decision that was made: the campaign is over, consent is gone."""
    shut = decision.closed_reason(stored.campaign, facts.now_ms)
    return shut or (None if facts.consented else "no_consent")


async def _settle(
    context: Context, stored: Stored, user: _KnownUser, request: DecisionRequest, facts: UserFacts
) -> Decided:
    shut, threshold = decision.closed_reason(stored.campaign, request.now_ms), float("-inf")
    if shut is None and facts.consented and facts.member and not facts.excluded:
        score = await score_of(
            context, stored, user.pseudonym, user.row, user.features, request.now_ms
        )
        facts = replace(facts, score=score)
        threshold = _threshold(
            stored, await context.await_bounded(context.of(Ledger).read_spent(stored.name))
        )
    if facts.tz is None and stored.campaign.quiet_hours is not None:
        facts = replace(facts, tz=await last_tz(context, user.pseudonym))
    made = decision.draft(
        stored.campaign, stored.salt, facts, threshold=threshold,
        global_share=context.settings.global_holdout,
    )  # fmt: skip
    body = body_of(stored, request, facts, list(made.reasons), made)
    if shut is not None:
        return Decided(_answer(stored, request, body), repeated=False)
    named = request.decision_id is not None
    if made.assigned is None and made.arm == "none" and not named:
        await _log(context, stored, user, body)
        return Decided(_answer(stored, request, body), repeated=False)
    keep = named or made.arm == "control"
    settled = await context.await_bounded(context.of(Ledger).settle(Wanted(
        stored.name, stored.campaign, user.pseudonym, request.name, body,
        made.arm == "treated", keep, request.now_ms,
    )))  # fmt: skip
    body = _whole(settled)
    await _log(context, stored, user, body)
    if keep or body["arm"] == "treated":
        await context.await_bounded(
            context.of(Ledger).mark_logged(stored.name, user.pseudonym, request.name)
        )
    return Decided(_answer(stored, request, body), repeated=settled.repeated)


async def _find_user(context: Context, request: DecisionRequest) -> _KnownUser | None:
    service = SERVICE if context.of(ServedModels).ask_features else None
    pseudonym, row, features = await users.find_user(context, request.user_id, None, service)
    erased = await context.await_bounded(
        context.store.sismember(erased_key(partition_of(pseudonym)), pseudonym)
    )  # fmt: skip
    if erased:
        raise ProblemError("erased", ERASED)
    if row is None:
        await users.find(context, request.user_id, None)  # refuses anonymous ids of the erased
        return None
    return _KnownUser(pseudonym, row, features)


async def _facts(
    context: Context, stored: Stored, user: _KnownUser, request: DecisionRequest
) -> UserFacts:
    profile, now_s = users.profile_of(user.row), request.now_ms // 1000
    rule_user = User(user.pseudonym, profile, now_s, context.settings.standing)
    known = await context.await_bounded(context.of(Eligibility).definitions())
    found = await context.of(Eligibility).of(stored.campaign, known, rule_user, request.now_ms)
    return replace(found, tz=request.tz)


def _threshold(stored: Stored, spent: Spent) -> float:
    """Return from which score on users are chosen: as ranked, else all or a share of the hashes."""
    if spent.threshold is not None:
        return spent.threshold
    if stored.campaign.rank_by == "random":
        return 1 - stored.campaign.top / 100
    if stored.campaign.top < 100:
        raise ConflictError(
            f"{stored.name} chooses the best {stored.campaign.top:g} % and was not ranked since it "
            f"was changed: POST /v1/campaigns/{stored.name}/rank first"
        )
    return float("-inf")


def _whole(settled: Settled) -> dict[str, Any]:
    """Return a settled decision with what caps and budget did to it."""
    body = settled.draft
    if settled.blocked:
        return body | {"arm": "none", "reasons": list(settled.blocked)}
    return body


def _answer(stored: Stored, request: DecisionRequest, body: dict[str, Any]) -> Decision:
    offer = stored.campaign.offer
    return {
        "campaign_id": stored.name,
        "user_id": request.user_id,
        "decision_id": request.decision_id,
        "decided_at": iso(body["at_ms"]),
        "channel": stored.campaign.channel,
        "arm": body["arm"],
        "assigned": body["assigned"],
        "offer": {"id": offer.id, "title": offer.title} if body["arm"] == "treated" else None,
        "reasons": body["reasons"],
        "score": body["score"],
        "propensity": body["propensity"],
        "explored": body["explored"],
    }


async def _log(context: Context, stored: Stored, user: _KnownUser, body: dict[str, Any]) -> None:
    """Append the events of a decision; appended before, they are known again."""
    events = records(stored, user.pseudonym, body)
    appended = await context.await_bounded(context.of(Appender).append(events))
    if any(one.status == "erased" for one in appended):
        raise ProblemError("erased", ERASED)
