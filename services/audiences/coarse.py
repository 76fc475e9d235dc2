"""Coarse answers: what a key of scope ``analyst`` is told, so that nobody is singled out.

- A count of fewer than `K` people, or of all but fewer than `K`, is null; others are rounded to
  `STEP`.
- Every moment is a midnight, UTC: two questions a moment apart are one.
- Of two questions of a day whose members differ by fewer than `K` people the later gets the count
  of the earlier, whoever put it, so their difference says nothing. A key has a budget of
  `NEAR_A_DAY` such questions.
- A rule that lists people, itself or through an audience that it names, is refused.

A key of scope ``server`` is told exact counts. Belongs here: what an analyst is told. Not here:
what behaviour analysis hides from everybody (`feature_repo.analytics.suppression`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from feature_repo.analytics.suppression import K
from feature_repo.audiences.references import nodes, references
from feature_repo.audiences.rules import Definition, IsPseudonym, IsUser
from feature_repo.events.schema import iso
from services.audiences.answers import AudienceAnswers, of_all
from services.audiences.schemas import Overlap, OverlapPair, Preview
from services.context.context import Context
from services.http.api_keys import Caller
from services.http.problems import ProblemError
from services.runtime import workers

STEP: Final = 5
NEAR_A_DAY: Final = 50
DAY_MS: Final = 86_400_000
_QUESTIONS: Final = b"portrait:questions:%d"
_NEAR: Final = "portrait:near:{}:{}"
_KEPT: Final = 500
_KEPT_S: Final = 2 * 86_400


def is_coarse(caller: Caller) -> bool:
    """Say whether a caller is told coarse figures only."""
    return not caller.may("server")


def midnight(moment_ms: int) -> int:
    """Return the midnight (UTC) at or before a moment, epoch milliseconds."""
    return moment_ms - moment_ms % DAY_MS


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
        "data": {
            "events": 1000 * round(found["data"]["events"] / 1000),
            "newest_event": None,
        },
    }


async def overlap(
    context: Context, caller: Caller, answers: AudienceAnswers, names: Sequence[str]
) -> Overlap:
    """Return sizes of audiences and what every two share, coarsely."""
    exact = await workers.ASKING.run(answers.overlap, names)
    groups = [[name] for name in names] + [[pair["a"], pair["b"]] for pair in exact["pairs"]]
    settled = await _settle(context, caller, answers, [of_all(each) for each in groups])
    sizes = dict(zip(names, settled, strict=False))
    users = answers.users
    pairs = list[OverlapPair]()
    for pair, both in zip(exact["pairs"], settled[len(names) :], strict=True):
        one, other = sizes[pair["a"]], sizes[pair["b"]]
        shown = round_count(both, users)
        if any(0 < size - both < K for size in (one, other)):
            shown = None
        either = None if shown is None else round_count(one + other - both, users)
        pairs.append(
            {
                "a": pair["a"], "b": pair["b"], "both": shown, "either": either,
                "jaccard": round(shown / either, 2) if shown is not None and either else None,
            }
        )  # fmt: skip
    counts = {name: round_count(size, users) for name, size in sizes.items()}
    return {"as_of": exact["as_of"], "counts": counts, "pairs": pairs}


async def _settle(
    context: Context, caller: Caller, answers: AudienceAnswers, questions: Sequence[Definition]
) -> list[int]:
    """Return the count of each question, or that of an earlier one that is too near to it."""
    day = answers.now_ms // DAY_MS
    key = _QUESTIONS % day
    kept = [orjson.loads(each) for each in await context.await_bounded(_earlier(context, key))]
    counts = list[int]()
    new, near = list[dict[str, Any]](), 0
    for definition in questions:
        count, is_new, is_near = await workers.ASKING.run(_compare, answers, definition, kept)
        counts.append(count)
        near += is_near
        if is_new:
            made = {"count": count, "question": answers.write_out(definition)}
            kept.append(made)
            new.append(made)
    if near:
        await _spend(context, caller, near)
    if new:
        await context.await_bounded(_keep(context, key, new))
    return counts


def _compare(
    answers: AudienceAnswers, definition: Definition, kept: Sequence[dict[str, Any]]
) -> tuple[int, bool, bool]:
    """Return the count to be told, whether the question is new, and whether it is a near one."""
    count = answers.count(definition)
    written = answers.write_out(definition)
    for each in kept:
        if each["question"] == written:
            return int(each["count"]), False, False
        if abs(int(each["count"]) - count) >= K:
            continue
        apart = answers.count_apart(definition, each["question"])
        if apart < K:
            return int(each["count"]), False, apart > 0
    return count, True, False


async def _earlier(context: Context, key: bytes) -> list[bytes]:
    found: list[bytes] = await context.store.lrange(key, -_KEPT, -1)
    return found


async def _keep(context: Context, key: bytes, new: Sequence[dict[str, Any]]) -> None:
    pipeline = context.store.pipeline(transaction=False)
    pipeline.rpush(key, *(orjson.dumps(each) for each in new))
    pipeline.ltrim(key, -_KEPT, -1)
    pipeline.expire(key, _KEPT_S)
    await pipeline.execute()


async def _spend(context: Context, caller: Caller, near: int) -> None:
    """Take near questions from a key's budget of today.

    Raises
    ------
    ProblemError
        429 where it is spent.
    """
    today = context.clock.now_ms() // DAY_MS
    key = _NEAR.format(caller.id, today)

    async def spend() -> int:
        pipeline = context.store.pipeline(transaction=False)
        pipeline.incrby(key, near)
        pipeline.expire(key, _KEPT_S)
        return int((await pipeline.execute())[0])

    if await context.await_bounded(spend()) > NEAR_A_DAY:
        left_s = (DAY_MS - context.clock.now_ms() % DAY_MS) // 1000 + 1
        raise ProblemError(
            "rate-limited",
            f"over {NEAR_A_DAY} questions a day that differ by fewer than {K} people from others: "
            f"ask from {iso((today + 1) * DAY_MS)} on, or with a key of scope server",
            headers={"retry-after": str(left_s)},
        )
