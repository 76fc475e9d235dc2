"""Coarse answers: what a key of scope ``analyst`` is told, so that nobody is singled out.

- A count of fewer than `K` people, or of all but fewer than `K`, is null; others are rounded to
  `STEP`.
- Every moment is a midnight, UTC, none after today's: two questions a moment apart are one.
- Of two questions whose members differ by fewer than `K` people the later gets the count of the
  earlier, whoever put it and whenever, so their difference says nothing. A key has a budget of
  `NEAR_A_DAY` such questions, and of `NEW_A_DAY` others that nobody put before.
- A rule that lists people, itself or through an audience that it names, is refused.

A key of scope ``server`` is told exact counts. Belongs here: what an analyst is told. Not here:
what behaviour analysis hides from everybody (`feature_repo.analytics.suppression`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from pydantic import ValidationError

from feature_repo.analytics.suppression import K
from feature_repo.audiences.references import nodes, references
from feature_repo.audiences.rules import Definition, IsPseudonym, IsUser
from feature_repo.errors import InvalidInputError
from feature_repo.events.schema import iso
from services.audiences.answers import AudienceAnswers, list_pairs, of_all
from services.audiences.schemas import AskedOf, Overlap, OverlapPair, Preview
from services.context.context import Context
from services.http.api_keys import Caller
from services.http.problems import ProblemError
from services.runtime import workers

STEP: Final = 5
NEAR_A_DAY: Final = 50
DAY_MS: Final = 86_400_000
NEW_A_DAY: Final = 100
_BOOK: Final = "portrait:questions"
_COUNTS: Final = "portrait:questions:{}"
_SPENT: Final = "portrait:questions:{}:{}:{}"
_KEPT: Final = 500
_KEPT_S: Final = 2 * 86_400
_TOGETHER: Final = 20
_UNREADABLE: Final = -(10**9)
"""Near to no count."""


def is_coarse(caller: Caller) -> bool:
    """Say whether a caller is told coarse figures only."""
    return not caller.may("server")


def midnight(moment_ms: int, now_ms: int) -> int:
    """Return the midnight (UTC) at or before a moment and now, epoch milliseconds."""
    moment_ms = min(moment_ms, now_ms)
    return moment_ms - moment_ms % DAY_MS


def blur_data(data: Any) -> AskedOf:
    """Return what an answer rests on, as it may be told."""
    return {"events": 1000 * round(data["events"] / 1000), "newest_event": None}


def round_count(count: int, of: int) -> int | None:
    """Return a count as it may be told; None if it, or what is left of the whole, is too small.

    Examples
    --------
    >>> round_count(53, 1000), round_count(19, 1000), round_count(990, 1000), round_count(0, 9)
    (55, None, None, None)
    """
    rest = of - count
    if count < K or 0 < rest < K:
        return None
    return STEP * round(count / STEP)


def refuse_named_people(definition: Definition, known: Mapping[str, Definition]) -> None:
    """Refuse a rule that lists people.

    Raises
    ------
    ProblemError
        403, with the pointer of the list, or of the audience that has one.
    """
    for name, pointer in [("", ""), *references(definition).items()]:
        found = definition if not name else known.get(name)
        if found is None:
            continue
        if name:
            try:
                refuse_named_people(found, known)
            except ProblemError:
                detail = f"the audience {name} lists people: that needs a key of scope server"
                raise ProblemError("forbidden", detail, pointer=pointer) from None
            continue
        for at, node in nodes(found):
            if isinstance(node, IsUser | IsPseudonym):
                detail = "a rule that lists people needs a key of scope server"
                raise ProblemError("forbidden", detail, pointer=at)


async def preview(
    context: Context, caller: Caller, answers: AudienceAnswers, definition: Definition
) -> Preview:
    """Return how many members a definition has, coarsely."""
    found = await workers.ASKING.run(answers.preview, definition)
    count = await _settle(context, caller, answers, [definition])
    users = found["users"]
    return {
        **found,
        "count": round_count(count[0], users),
        "users": STEP * round(users / STEP),
        "took_ms": 0.0,
        "data": blur_data(found["data"]),
    }


async def overlap(
    context: Context, caller: Caller, answers: AudienceAnswers, names: Sequence[str]
) -> Overlap:
    """Return sizes of audiences and what every two share, coarsely."""
    compared = list_pairs(names)
    groups = [[name] for name in names] + [list(pair) for pair in compared]
    settled = await _settle(context, caller, answers, [of_all(each) for each in groups])
    sizes = dict(zip(names, settled, strict=False))
    users = answers.users
    pairs = list[OverlapPair]()
    for (a, b), both in zip(compared, settled[len(names) :], strict=True):
        one, other = sizes[a], sizes[b]
        shown = round_count(both, users)
        if any(0 < size - both < K for size in (one, other)):
            shown = None
        either = None if shown is None else round_count(one + other - both, users)
        pairs.append(
            {
                "a": a, "b": b, "both": shown, "either": either,
                "jaccard": round(shown / either, 2) if shown is not None and either else None,
            }
        )  # fmt: skip
    counts = {name: round_count(size, users) for name, size in sizes.items()}
    return {"as_of": iso(answers.now_ms), "counts": counts, "pairs": pairs}


async def _settle(
    context: Context, caller: Caller, answers: AudienceAnswers, questions: Sequence[Definition]
) -> list[int]:
    """Return the count of each question, or that of an earlier one that is too near to it."""
    counts_key = _COUNTS.format(answers.now_ms // DAY_MS)
    book, counts = await context.await_bounded(_read_book(context, counts_key))
    await _count_book(context, answers, book, counts, counts_key)
    found = await workers.ASKING.run(_find, answers, questions, book, counts)
    if found.near:
        await _spend(context, caller, "near", found.near, NEAR_A_DAY)
    if found.new:
        await _spend(context, caller, "new", len(found.new), NEW_A_DAY)
    if found.new:
        await context.await_bounded(_keep(context, counts_key, found))
    return found.counts


async def _count_book(
    context: Context,
    answers: AudienceAnswers,
    book: Sequence[bytes],
    counts: dict[str, int],
    counts_key: str,
) -> None:
    """Count the book's questions as of a moment that nobody asked about yet, some at a time.

    What is counted is kept at once, so that a request that ends on its way leaves less to the next.
    """
    unknown = [each for each in book if _name(each) not in counts]
    for start in range(0, len(unknown), _TOGETHER):
        some = unknown[start : start + _TOGETHER]
        learned = await workers.ASKING.run(_count, answers, some)
        counts |= learned
        await context.await_bounded(_keep_counts(context, counts_key, learned))


def _count(answers: AudienceAnswers, book: Sequence[bytes]) -> dict[str, int]:
    found = dict[str, int]()
    for written in book:
        try:
            found[_name(written)] = answers.count_written(orjson.loads(written))
        except (ValidationError, InvalidInputError):  # of a version whose rules were others
            found[_name(written)] = _UNREADABLE
    return found


def _name(written: bytes) -> str:
    return hashlib.sha256(written).hexdigest()[:32]


@dataclass(slots=True)
class _Found:
    """Answers to some questions: their counts, the new ones with theirs, and how many were near."""

    counts: list[int] = field(default_factory=list)
    new: dict[bytes, int] = field(default_factory=dict)
    near: int = 0


def _find(
    answers: AudienceAnswers,
    questions: Sequence[Definition],
    book: Sequence[bytes],
    counts: Mapping[str, int],
) -> _Found:
    """Find the earliest question that is near to each, and count that one."""
    found = _Found()
    known = {each: counts[_name(each)] for each in book}
    for definition in questions:
        written = orjson.dumps(answers.write_out(definition), option=orjson.OPT_SORT_KEYS)
        own = known[written] if written in known else answers.count(definition)
        for each, earlier in known.items():
            apart = 0 if each == written else K
            if abs(earlier - own) < apart:
                apart = answers.count_apart(definition, orjson.loads(each))
            if apart < K:
                found.counts.append(earlier)
                found.near += apart > 0
                break
        else:
            found.counts.append(own)
            known[written] = found.new[written] = own
    return found


async def _read_book(context: Context, counts_key: str) -> tuple[list[bytes], dict[str, int]]:
    pipeline = context.store.pipeline(transaction=False)
    pipeline.lrange(_BOOK, -_KEPT, -1)
    pipeline.hgetall(counts_key)
    book, counts = await pipeline.execute()
    return list(book), {name.decode(): int(count) for name, count in counts.items()}


async def _keep(context: Context, counts_key: str, found: _Found) -> None:
    pipeline = context.store.pipeline(transaction=False)
    pipeline.rpush(_BOOK, *found.new)
    pipeline.ltrim(_BOOK, -_KEPT, -1)
    await pipeline.execute()
    counts = {_name(written): count for written, count in found.new.items()}
    await _keep_counts(context, counts_key, counts)


async def _keep_counts(context: Context, counts_key: str, counts: dict[str, int]) -> None:
    pipeline = context.store.pipeline(transaction=False)
    pipeline.hset(counts_key, mapping=counts)
    pipeline.expire(counts_key, _KEPT_S)
    await pipeline.execute()


async def _spend(context: Context, caller: Caller, what: str, many: int, most: int) -> None:
    """Take questions from a key's budget of today.

    Raises
    ------
    ProblemError
        429 where it is spent.
    """
    today = context.clock.now_ms() // DAY_MS
    key = _SPENT.format(what, caller.id, today)

    async def spend() -> int:
        pipeline = context.store.pipeline(transaction=False)
        pipeline.incrby(key, many)
        pipeline.expire(key, _KEPT_S)
        return int((await pipeline.execute())[0])

    if await context.await_bounded(spend()) > most:
        left_s = (DAY_MS - context.clock.now_ms() % DAY_MS) // 1000 + 1
        which = f"that differ by fewer than {K} people from others" if what == "near" else "anew"
        raise ProblemError(
            "rate-limited",
            f"over {most} questions a day {which}: ask from {iso((today + 1) * DAY_MS)} on, "
            "or with a key of scope server",
            headers={"retry-after": str(left_s)},
        )
