"""The bench `audiences`: how soon a rule is counted, and whether both back ends agree.

The history is Complete Journey's, each household ten times under other names: 1.5 million
events, 14 million lines. Belongs here: the rules asked and the measuring.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from feature_repo.archive.event_archive import Archive
from feature_repo.audiences import language
from feature_repo.audiences.compiler import compile_definition
from feature_repo.audiences.index import Index
from feature_repo.audiences.live import User, is_member
from feature_repo.audiences.plan import plan
from feature_repo.audiences.rules import Definition
from feature_repo.features import snapshots
from feature_repo.features.catalogue import USER_VIEWS
from feature_repo.user_profile import explicit
from services.audiences.answers import AudienceAnswers

COPIES: Final = 10
RULES: Final = 300
CHECKED_RULES: Final = 100
WARM_UP: Final = 5
SEED: Final = 7
_DAY_MS: Final = 86_400_000

Tell = Callable[[int, int, str], None]


def measure_audiences(*, data: Path | None, tell: Tell) -> dict[str, Any]:
    """Return the figures; what is made for it lies in a temporary folder and goes with it.

    Parameters
    ----------
    data
        State folder with an archive, only read; default: Complete Journey is imported.
    """
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        home = history(data, Path(folder), tell)
        mismatches, compared = _compare(home, tell)
        many = Path(folder) / "many"
        multiply(home, many, tell)
        tell(0, 0, "the index")
        with Index(many) as index:
            times_ms, cpu_ms = _times(index, tell)
            return {
                "count_ms": {f"p{at}": share(times_ms, at) for at in (50, 95)},
                "count_cpu_ms": {f"p{at}": share(cpu_ms, at) for at in (50, 95)},
                "backend_mismatches": mismatches,
                "rules": len(times_ms),
                "events": index.num_events,
                "users": index.num_users,
                "count_ms_max": round(max(times_ms), 3),
                "index_s": round(index.built_s, 1),
                "compared": compared,
            }


def rules(index: Index, number: int, *, realtime: bool) -> list[Definition]:
    """Return different rules of one to four leaves, the same at each call, on what is in an index.

    Parameters
    ----------
    realtime
        Whether a live profile must be able to answer them.
    """
    dice, found = random.Random(SEED), dict[str, Definition]()  # noqa: S311 - a choice, no secret
    categories = index.top_categories(30)
    named = _named_goods(index)
    while len(found) < number:
        leaves = [_leaf(dice, categories, named) for _ in range(dice.choice((1, 2, 2, 3, 4)))]
        rule = leaves[0] if len(leaves) == 1 else {dice.choice(("all", "any")): leaves}
        body: dict[str, Any] = {"rule": rule, "consent": [], "exclude": []}
        if not realtime and dice.random() < 0.3:
            sent = {"type": "message_sent", "count": {"gte": 3}, "within": "30d"}
            body["exclude"] = [{"event": sent}]
        definition = language.read(body)
        if not realtime or plan(definition, {})["mode"] == "realtime":
            found[str(body)] = definition
    return list(found.values())


def _leaf(dice: random.Random, categories: Sequence[str], named: dict[str, list[str]]) -> Any:
    node_type = dice.choices(
        ("total", "event", "trait", "feature", "score", "sequence", "not"), (3, 5, 4, 2, 1, 1, 1)
    )[0]
    if node_type == "not":
        return {"not": _leaf(dice, categories, named)}
    if node_type == "total":
        event_types = ("purchase", "purchase", "coupon_redeemed", "message_sent")
        test: dict[str, Any] = {
            "type": dice.choice(event_types),
            "count": {"gte": dice.randint(1, 60)},
        }
        return {"event": test}
    if node_type == "event":
        return {"event": _event(dice, categories, named)}
    if node_type == "trait":
        return {"trait": dice.choice(_TRAITS)(dice)}
    if node_type == "feature":
        name = dice.choice(("rfm_recency_quintile", "rfm_monetary_quintile", "num_purchases_28d"))
        if dice.random() < 0.4:
            wanted = {"name": "interest_categories", "contains": [dice.choice(categories)]}
            return {"trait": wanted}
        return {"trait": {"name": name, "gte": dice.randint(1, 5)}}
    if node_type == "score":
        name = dice.choice(("interest", "price_level"))
        return {"score": {"name": name, "top": dice.choice((5, 10, 20))}}
    then = {"type": dice.choice(("coupon_redeemed", "purchase"))}
    test = {"start": {"type": "purchase"}, "then": then, "within": f"{dice.randint(1, 14)}d"}
    return {"sequence": test | {"ended_within": f"{dice.randint(7, 60)}d"}}


def _event(
    dice: random.Random, categories: Sequence[str], named: dict[str, list[str]]
) -> dict[str, Any]:
    test: dict[str, Any] = {"type": "purchase"}
    where = dice.choice(("department", "category", "category", "brand", "item_id", "value", ""))
    if where == "department":
        test["where"] = {"category": dice.choice(categories).split("/")[0]}
    elif where == "category":
        test["where"] = {"category": dice.choice(categories)}
    elif where == "value":
        test["where"] = {"value": {"gte": dice.randint(20, 150)}}
    elif where:
        test["where"] = {where: dice.choice(named[where])}
    if dice.random() < 0.7:
        test["within"] = f"{dice.choice((7, 28, 91, 182))}d"
    measure = dice.choice(("count", "count", "sum", "last", ""))
    if measure == "sum":
        test["sum"] = {"of": dice.choice(("amount", "quantity")), "gte": dice.randint(5, 200)}
    elif measure == "last":
        test["last"] = {"gte": dice.randint(1, 30)}
    elif measure:
        test["count"] = {"gte": dice.randint(1, 12)}
    return test


_TRAITS: Final[tuple[Callable[[random.Random], dict[str, Any]], ...]] = (
    lambda dice: {"name": "lifecycle.stage", "in": dice.sample(("new", "active", "at_risk"), 2)},
    lambda dice: {"name": "rfm.recency_days", "lte": dice.randint(1, 60)},
    lambda dice: {"name": "rfm.frequency.28d", "gte": dice.randint(1, 8)},
    lambda dice: {"name": "rfm.monetary.91d", "gte": dice.randint(10, 900)},
    lambda dice: {"name": "orders.spend", "gt": dice.randint(10, 3000)},
    lambda dice: {"name": "habits.median_gap_days", "lt": dice.randint(2, 20)},
    lambda dice: {"name": "event_count", "gte": dice.randint(5, 100)},
)


def _named_goods(index: Index) -> dict[str, list[str]]:
    return {
        name: [
            str(row[0])
            for row in index.rows(
                f"SELECT {name} FROM lines JOIN goods USING (good) "  # noqa: S608
                f"WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 40",
                {},
            )
        ]
        for name in ("brand", "item_id")
    }


def _times(index: Index, tell: Tell) -> tuple[list[float], list[float]]:
    """Return what each rule took: by the clock, and of both cores' time, milliseconds.

    The second is what to look at on a machine with other work.
    """
    answers = AudienceAnswers(index, {}, index.newest_ms)
    definitions, times_ms, cpu_ms = (
        rules(index, RULES, realtime=False),
        list[float](),
        list[float](),
    )
    for definition in definitions[:WARM_UP]:
        answers.preview(definition)
    for number, definition in enumerate(definitions):
        started_s, cpu_s = time.perf_counter(), time.process_time()
        answers.preview(definition)
        times_ms.append((time.perf_counter() - started_s) * 1000)
        cpu_ms.append((time.process_time() - cpu_s) * 1000)
        tell(number, len(definitions), "rules counted")
    return times_ms, cpu_ms


def share(values_ms: Sequence[float], percent: int) -> float:
    """Return the time that so many percent do not exceed."""
    ordered = sorted(values_ms)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 3)


def _compare(home: Path, tell: Tell) -> tuple[int, int]:
    """Return on how many memberships the back ends differ, and how many were compared.

    As of the newest event and half a year before it.
    """
    differ, compared = 0, 0
    with Index(home) as index:
        chosen = rules(index, CHECKED_RULES, realtime=True)
        for now_ms in (index.newest_ms, index.newest_ms - 182 * _DAY_MS):
            users = list(_users(home, now_ms))
            for number, definition in enumerate(chosen):
                tell(number, len(chosen), "rules compared")
                query = compile_definition(
                    definition, {}, now_ms=now_ms, past=index.is_past(now_ms)
                )
                page = {"after": "", "limit": index.num_users}
                found = {r[0] for r in index.rows(query.members(), {**query.parameters, **page})}
                mine = {user.pseudonym for user in users if is_member(definition, {}, user)}
                differ += len(found ^ mine)
                compared += len(users)
    return differ, compared


def _users(home: Path, now_ms: int) -> Iterator[User]:
    archive = Archive(home / "archive" / "events")
    for pseudonym, events in archive.histories(until_ms=now_ms + 1):
        yield User(pseudonym, explicit.fold(events), now_ms // 1000)


def history(data: Path | None, folder: Path, tell: Tell) -> Path:
    """Return a state folder with history and features; what ``data`` lacks is made elsewhere."""
    from services.lab.bench.model import archive_of

    archive = archive_of(data, folder, tell)
    home = folder / "one"
    (home / "archive").mkdir(parents=True)
    (home / "archive" / "events").symlink_to(archive.root.resolve(), target_is_directory=True)
    features = archive.root.parent.parent / "features"
    if all((features / view).is_dir() for view in USER_VIEWS):
        (home / "features").symlink_to(features.resolve(), target_is_directory=True)
    else:
        with duckdb.connect() as connection:
            row = connection.execute(
                "SELECT epoch_ms(max(time)) FROM read_parquet(?)", [archive.glob()]
            ).fetchone()
        assert row is not None
        until = datetime.fromtimestamp((row[0] + 1) / 1000, UTC)
        snapshots.build(home, until=until, progress=lambda what, n, all_: tell(n, all_, what))
    return home


def multiply(home: Path, many: Path, tell: Tell) -> None:
    """Copy history and features `COPIES` times, the users of each under other names."""
    sources = {"archive/events": "event_id || '-{n}' AS event_id, ''::BLOB AS record,"}
    sources |= {f"features/{view}": "" for view in USER_VIEWS}
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2; SET enable_progress_bar = false")
        for number in range(COPIES):
            tell(number, COPIES, "copies of the history")
            letter = "abcdefghij"[number]
            for folder, changes in sources.items():
                (many / folder).mkdir(parents=True, exist_ok=True)
                renamed = f"""substr("user", 1, 31) || '{letter}' AS "user" """
                replaced = f"{changes.replace('{n}', str(number))} {renamed}"
                connection.execute(
                    f"COPY (SELECT * REPLACE ({replaced}) "  # noqa: S608
                    f"FROM read_parquet('{(home / folder).resolve()}/*.parquet')) "
                    f"TO '{many / folder}/{number}.parquet'"
                )
