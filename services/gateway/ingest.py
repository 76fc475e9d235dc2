"""Routes that take events in: one, or a batch. An answer of 202 means it is in the log."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Literal

import orjson
from fastapi import Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from feature_repo.archive.currency import REASON
from feature_repo.events.decoding import decode_event
from feature_repo.events.minimisation import Minimiser
from feature_repo.events.schema import (
    DEDUP_WINDOW_MS,
    MAX_EVENT_BYTES,
    MAX_FUTURE_MS,
    Event,
    EventRecord,
    is_late,
    now_ms,
    pointer,
    problems,
    to_record,
)
from feature_repo.user_profile.consent import find_misnamed
from services.catalogue.catalogue import Catalogue
from services.context import users
from services.context.answers import answer, context_of
from services.context.context import Context
from services.event_log.append import Appender
from services.event_log.currency import ShopCurrency
from services.event_log.receipt import Appended, merge
from services.gateway.privacy_signal import statements_of
from services.gateway.profiles import current
from services.http import body, scopes
from services.http.answer_schemas import (
    EVENT,
    EVENT_BATCH,
    Accepted,
    Applied,
    EventRefused,
    EventsTaken,
)
from services.http.api_keys import Caller
from services.http.middleware import Metrics
from services.http.openapi import EVENT_EXAMPLE, batch_of, body_of
from services.http.problems import ERASED, ProblemError
from services.http.senders import refusal
from services.runtime import workers

router = scopes.router("write", "events", "/v1/events")


@dataclass(slots=True)
class _Batch:
    """What is in a batch: the events that are taken, and where they stood."""

    received: int
    records: list[EventRecord] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    refused: list[EventRefused] = field(default_factory=list)


@router.post("", status_code=202, responses=EVENT, openapi_extra=body_of(Event, EVENT_EXAMPLE))
async def post_event(
    request: Request,
    returning: Annotated[
        Literal["profile"] | None, Query(alias="return", description="Wait and answer the profile")
    ] = None,
) -> Response:
    """Take one event; 202 once it is durable, 200 with ``return=profile`` once it is applied."""
    if returning is not None:  # that makes a read of it
        scopes.require(request, "server")
    context = context_of(request)
    data = await body.read(request, limit=MAX_EVENT_BYTES)
    event = decode_event(data)
    if event is None:
        event = await workers.READING.run(_event, data)
    if returning is not None:
        request.state.about = event.user_id or event.anonymous_id
    # What stands in a large one is looked through beside the loop.
    if len(data) > body.SMALL_BYTES:
        record = await workers.READING.run(_record, context, event, request.state.caller)
    else:
        record = _record(context, event, request.state.caller)
    appended, reply = await _take(request, record)
    if returning is None:
        return answer(reply, 202)
    await context.await_receipt(appended.receipt, {appended.partition})
    user_id = event.user_id or event.anonymous_id or ""
    owner = await users.owner(context, record.user) if record.anonymous else None
    profile = await current(context, owner or record.user, user_id)
    if profile is None and not appended.kept:
        return answer(reply, 202)
    if profile is None and appended.status == "duplicate":
        raise ProblemError(
            "not-found", "the event's id is taken by one of another user; this one has no profile",
            hint="Give every event an id of its own.",
        )  # fmt: skip
    if profile is None:  # a poison event leaves its user without a row
        raise ProblemError("not-applied-yet", "the event is stored but could not be applied")
    applied: Applied = {**reply, "profile": profile}
    return answer(applied)


async def take(request: Request, event: Event) -> Accepted:
    """Append an event of Portrait's own; return the answer's ``id``, ``status`` and ``receipt``.

    Raises
    ------
    ProblemError
        410 if its user has been erased.
    StoreUnavailableError
        See `services.event_log.append.Appender.append`.
    """
    record = _record(context_of(request), event, request.state.caller, minimise=False)
    return (await _take(request, record))[1]


async def _take(request: Request, record: EventRecord) -> tuple[Appended, Accepted]:
    aside = (await _in_shop_currency(request, [record]))[0]
    appended = (await _append(request, [record]))[0]
    _count(request, [record], [appended])
    if appended.status == "erased":
        raise ProblemError("erased", ERASED)
    reply: Accepted = {
        "id": record.id, "status": appended.status, "receipt": str(appended.receipt),
    }  # fmt: skip
    if aside:
        reply["set_aside"] = REASON
    return appended, reply


@router.post(
    "/batch", status_code=202, responses=EVENT_BATCH, openapi_extra=batch_of(Event, EVENT_EXAMPLE)
)
async def post_batch(request: Request) -> Response:
    """Take up to 1,000 events, each by itself: 202 all, 207 some, 422 none."""
    context = context_of(request)
    data, lines = await body.read_batch(request)
    batch = await workers.READING.run(_batch, context, data, request.state.caller, lines=lines)
    records, refused = batch.records, batch.refused
    aside = await _in_shop_currency(request, records)
    appended = await _append(request, records) if records else []
    for index, record, one in zip(batch.indices, records, appended, strict=True):
        if one.status == "erased":
            refused.append(_refuse(index, record.id, "erased", "", ERASED))
    refused.sort(key=lambda each: each["index"])
    counts = Counter(one.status for one in appended)
    stored = [one for one in appended if one.status != "erased"]
    _count(request, records, appended)
    request.app.state.metrics.events.labels("rejected").inc(len(refused) - counts["erased"])
    reply: EventsTaken = {
        "received": batch.received,
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": len(refused),
        "receipt": str(merge(stored)) if stored else None,
        "errors": refused,
    }
    if any(aside):
        reply["amounts_set_aside"] = sum(aside)
    workers.READING.free(records)
    return answer(reply, 202 if not refused else 207 if stored else 422)


def _count(request: Request, records: list[EventRecord], appended: list[Appended]) -> None:
    metrics: Metrics = request.app.state.metrics
    for status, count in Counter(one.status for one in appended).items():
        metrics.events.labels(status).inc(count)
    metrics.unprofiled.inc(sum(not one.kept for one in appended))
    pairs = zip(records, appended, strict=True)
    late = sum(is_late(record) and one.status == "accepted" for record, one in pairs)
    if late:
        metrics.late.inc(late)


def _event(document: bytes) -> Event:
    """Return the event of a request that holds one, or say what is wrong with it."""
    try:
        return Event.model_validate(body.parse(document))
    except ValidationError as error:
        raise body.invalid(error) from None


def _batch(context: Context, data: bytes, sender: Caller, *, lines: bool) -> _Batch:
    documents = body.split(data, lines=lines)
    found = _Batch(len(documents))
    for index, document in enumerate(documents):
        taken = _read_event(context, index, document, sender)
        if isinstance(taken, EventRecord):
            found.records.append(taken)
            found.indices.append(index)
        else:
            found.refused.append(taken)
    return found


def _read_event(
    context: Context, index: int, document: bytes, sender: Caller
) -> EventRecord | EventRefused:
    if len(document) > MAX_EVENT_BYTES:
        return _refuse(index, None, "too-large", "", f"over {MAX_EVENT_BYTES:,} bytes")
    try:
        event = decode_event(document) or Event.model_validate_json(document)
        if event.id is None:
            return _refuse(index, None, "invalid", "/id", "id is required in a batch")
        return _record(context, event, sender)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            problem = "invalid" if body.has_non_finite(document) else "malformed"
            return _refuse(
                index, None, problem, "", "not JSON, or with a number that is not finite"
            )
        found = problems(error)[0]
        return _refuse(index, _id_of(document), "invalid", found["pointer"], found["detail"])
    except ProblemError as error:
        at = error.problem.errors[0]["pointer"] if error.problem.errors else ""
        return _refuse(index, _id_of(document), error.problem.name, at, error.problem.detail)


def _refuse(index: int, name: str | None, problem: str, at: str, detail: str) -> EventRefused:
    return {"index": index, "id": name, "type": f"/problems/{problem}", "pointer": at,
            "detail": detail}  # fmt: skip


def _id_of(document: bytes) -> str | None:
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    given = found.get("id") if isinstance(found, dict) else None
    return given[:128] if isinstance(given, str) else None


def _record(
    context: Context, event: Event, sender: Caller, *, minimise: bool = True
) -> EventRecord:
    """Return the record to append: checked, minimised, items filled in from the catalogue."""
    refused = refusal(event, sender, may_link=context.settings.write_keys_link)
    if refused is not None:
        raise ProblemError("forbidden", refused[1], pointer=refused[0])
    misnamed = find_misnamed(event.type, event.consent, event.properties)
    if misnamed is not None:
        where, name = misnamed
        raise ProblemError("invalid", f"the purpose is named {name}", pointer=pointer(where))
    if context.clock.replay:
        if event.time is not None:
            context.clock.show(event.time)
        received_ms = event.time if event.time is not None else context.clock.now_ms()
    else:
        received_ms = now_ms()
        _check_time(event, received_ms)
    record = to_record(event, context.pseudonyms, received_ms, sender.mark)
    if minimise:
        unwanted = context.of(Minimiser).apply(event, record)
        if unwanted is not None:
            raise ProblemError("invalid", unwanted.detail, pointer=unwanted.pointer)
    context.of(Catalogue).enrich(record)
    return record


def _check_time(event: Event, now: int) -> None:
    if event.time is None:
        return
    if event.time > now + MAX_FUTURE_MS:
        detail = f"time is {(event.time - now) // 1000} s ahead of the server: at most 300 s"
    elif event.time < now - DEDUP_WINDOW_MS:
        detail = "time is more than 72 h ago: bring history in with `portrait import`"
    else:
        return
    raise ProblemError("invalid", detail, pointer="/time")


async def _in_shop_currency(request: Request, records: list[EventRecord]) -> list[bool]:
    """Turn amounts into the shop's currency; say of which events some were set aside."""
    claims = not request.state.caller.may("server")
    aside = await context_of(request).of(ShopCurrency).convert(records, claims=claims)
    if any(aside):
        metrics: Metrics = request.app.state.metrics
        metrics.set_aside.labels(REASON).inc(sum(aside))
    return aside


async def _append(request: Request, records: list[EventRecord]) -> list[Appended]:
    # Statements go first, so that a receipt of the events holds for them as well.
    context, whole = context_of(request), [*statements_of(request.headers, records), *records]
    # The appender works in a task of its own: a client that hangs up cancels this handler,
    # never the write. The bound grows with the batch.
    done = await context.await_bounded(context.of(Appender).append(whole), len(whole) / 1000)
    return done[len(whole) - len(records) :]
