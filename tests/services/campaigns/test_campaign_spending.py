"""Caps and budgets under parallel decisions, killed gateways and repeats: never exceeded."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from gateway_process import GatewayProcess, gateways
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stalls import patient
from store_nodes import cluster

from feature_repo.archive.event_archive import Archive
from feature_repo.events.schema import EventRecord
from feature_repo.feast_stores import store as feast_store
from feature_repo.online.connection import connect_async
from services.campaigns import language
from services.campaigns.definitions import Campaigns
from services.campaigns.keys import decisions_key, sent_key, state_key
from services.campaigns.ledger import Ledger, Wanted
from services.models.transition import Transition
from services.settings import Settings
from services.update.updater import UpdaterLoop

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
WINDOW = {"from": "2023-01-01", "until": "2033-01-01"}


def campaign(**given: Any) -> Any:
    return language.read(
        {"audience": "a", "offer": {"id": "o", "cost": 0.3}, "channel": "email", "window": WINDOW}
        | given
    )


def wanted(name: str, pseudonym: str, decision: str, now_ms: int, **given: Any) -> Wanted:
    return Wanted(name, campaign(**given), pseudonym, decision, {"n": 1}, True, False, now_ms)


async def settled(url: str, decisions: list[Wanted], clients: int = 8) -> list[bool]:
    """Settle decisions over connections side by side; True: a message was sent."""
    found = [False] * len(decisions)

    async def work(start: int) -> None:
        client = connect_async(url)
        ledger = Ledger(client)
        for n in range(start, len(decisions), clients):
            found[n] = not (await ledger.settle(decisions[n])).blocked
        await client.aclose()

    await asyncio.gather(*(work(n) for n in range(clients)))
    return found


def test_a_budget_is_spent_to_the_last_message_and_no_further(
    redis_url: str, store_client: redis.Redis
) -> None:
    bound = {"messages": 70, "amount": 25.0}  # 83 messages at 0.3
    decisions = [wanted("b", f"u{n % 150}", f"d{n}", START_MS, budget=bound) for n in range(600)]
    sent = asyncio.run(settled(redis_url, decisions))
    assert sum(sent) == 70
    assert store_client.hgetall(state_key("b"))[b"amount_u"] == b"21000000"
    assert asyncio.run(settled(redis_url, decisions)) == sent
    poor = [wanted("p", f"u{n}", "d", START_MS, budget={"amount": 1.0}) for n in range(50)]
    assert sum(asyncio.run(settled(redis_url, poor))) == 3


amounts = st.decimals("0", "10", places=7) | st.sampled_from([Decimal("0.0004"), Decimal("1e-9")])


@given(cost=amounts, budget=amounts, before=st.integers(0, 2000))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_budget_holds_at_any_cost(
    redis_url: str, cost: Decimal, budget: Decimal, before: int
) -> None:
    """What was spent stays within the budget and is the messages' cost, to a millionth each."""
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
        store.hset(state_key("c"), "amount", before)  # thousandths that an older version spent
    asks = [
        wanted("c", f"u{n}", "d", START_MS, budget={"amount": float(budget)},
               offer={"id": "o", "cost": float(cost)})
        for n in range(12)
    ]  # fmt: skip
    sent = sum(asyncio.run(settled(redis_url, asks, clients=1)))

    async def spent() -> int:
        client = connect_async(redis_url)
        found = await Ledger(client).read_spent("c")
        await client.aclose()
        return found.amount_u

    total = Fraction(asyncio.run(spent()), 10**6) - Fraction(before, 1000)
    assert 0 <= total - sent * Fraction(cost) <= Fraction(sent, 10**6)
    left = Fraction(budget) - Fraction(before, 1000)
    if sent:
        assert total <= left
    if sent < len(asks):  # one more message would break the budget, to a millionth each
        assert (sent + 1) * (Fraction(cost) + Fraction(1, 10**6)) > left - Fraction(1, 10**6)


def test_parallel_decisions_of_one_name_send_one_message(
    redis_url: str, store_client: redis.Redis
) -> None:
    same = [wanted("one", "u", "d", START_MS + n) for n in range(60)]
    assert all(asyncio.run(settled(redis_url, same)))
    assert store_client.hget(state_key("one"), "messages") == b"1"
    assert store_client.zcard(sent_key("u")) == 1
    assert store_client.pttl(decisions_key("u")) > 400 * 24 * HOUR_MS


@given(
    asks=st.lists(
        st.tuples(st.sampled_from(["one", "two"]), st.sampled_from(["email", "push"]),
                  st.integers(0, 60)), min_size=1, max_size=40,
    ),
    most=st.integers(1, 3), hours=st.integers(1, 20),
    scope=st.sampled_from(["campaign", "channel", "all"]),
)  # fmt: skip
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_span_holds_more_messages_than_a_cap_allows(
    redis_url: str, asks: list[tuple[str, str, int]], most: int, hours: int, scope: str
) -> None:
    """Decisions at any times in any order; a message is refused only where one more would break."""
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
    cap = {"scope": scope, "most": most, "within": f"{hours}h"}
    # A campaign's name may be a channel's: that must confuse nothing.
    names = {"one": "email", "two": "push"}
    decisions = [
        wanted(names[name], "u", f"d{n}", START_MS + at * HOUR_MS, channel=channel, caps=[cap])
        for n, (name, channel, at) in enumerate(asks)
    ]
    sent = asyncio.run(settled(redis_url, decisions, clients=1))

    def counted(one: Wanted, other: Wanted) -> bool:
        """Say whether a cap of one decision counts the message of another."""
        return {
            "campaign": one.name == other.name,
            "channel": one.campaign.channel == other.campaign.channel,
            "all": True,
        }[scope]

    span_ms, messages = hours * HOUR_MS, list[Wanted]()
    for one, out in zip(decisions, sent, strict=True):
        near = [m for m in messages if counted(one, m) and abs(m.now_ms - one.now_ms) < span_ms]
        assert out == (len(near) < most)
        messages += [one] if out else []
    for one in messages:
        times = [m.now_ms - one.now_ms for m in messages if counted(one, m)]
        assert sum(0 <= time_ms < span_ms for time_ms in times) <= most


def test_campaigns_are_kept_and_settled_on_a_cluster(tmp_path: Path) -> None:
    async def run(url: str) -> tuple[Any, ...]:
        client = connect_async(url)
        campaigns, ledger = Campaigns(client), Ledger(client)
        await campaigns.put("b", campaign(budget={"messages": 3}), now_ms=1)
        one = wanted("b", "{p001}u", "d", START_MS)
        stored = await campaigns.get("b")
        found = await ledger.settle(one), await ledger.settle(one), await ledger.read_spent("b")
        await ledger.mark_logged("b", "{p001}u", "d")
        kept = await ledger.read("b", "{p001}u", "d")
        await client.aclose()
        return stored.name, *found, kept

    with cluster(tmp_path) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = patient(f"redis+cluster://{hosts}")
        sent = asyncio.run(
            settled(url, [wanted("p", f"{{p{n:03d}}}u", "d", START_MS, budget={"messages": 9})
                          for n in range(40)])
        )  # fmt: skip
        name, first, again, spent, kept = asyncio.run(run(url))
    assert (sum(sent), name, first.repeated, again.repeated) == (9, "b", False, True)
    assert (spent.messages, kept) == (1, (again, True))


# --- whole gateways, killed


@pytest.fixture
def shop(redis_url: str, store_client: redis.Redis, tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path, redis_url=redis_url, archive_every_s=3600)
    made.export(redis_url)
    feast_store.apply()
    return made


def decide(gateway: GatewayProcess, user: str, decision: str) -> dict[str, Any] | None:
    """Ask once; None if the gateway was killed over it, or the store kept it waiting."""
    body = {"user_id": user, "decision_id": decision}
    try:
        with gateway.client() as client:
            response = client.http.post("/v1/campaigns/spring/decide", json=body)
    except httpx2.TransportError:
        return None
    found: dict[str, Any] = response.json()
    assert response.status_code in {200, 503}, found
    return found if response.status_code == 200 else None


def decide_at_last(gateway: GatewayProcess, user: str, decision: str) -> dict[str, Any]:
    """Ask until there is an answer, as clients do."""
    for _ in range(20):
        if (found := decide(gateway, user, decision)) is not None:
            return found
    raise AssertionError(f"no answer for {user}, {decision}")


def logged(store: redis.Redis, home: Path) -> list[EventRecord]:
    """Return the events of the archive, and those of the log that are not archived yet."""
    archive = Archive(home / "archive" / "events")
    found = [event for _, history in archive.histories() for event in history]
    archived = {(event.user, event.id) for event in found}
    for key in store.scan_iter("{p*}log"):
        tail = [EventRecord.decode(entry[b"e"]) for _, entry in store.xrange(key)]
        found += [event for event in tail if (event.user, event.id) not in archived]
    return found


def test_killed_gateways_neither_exceed_nor_lose(
    shop: Settings, redis_url: str, store_client: redis.Redis
) -> None:
    """Gateways are killed amid parallel decisions; every decision is then asked for again."""
    users, most = [f"u{n}" for n in range(12)], 20
    asks = [(user, f"d{n}") for n in range(6) for user in users]
    random.Random(3).shuffle(asks)
    with gateways(shop, [redis_url] * 4) as started:
        loop = UpdaterLoop(shop, redis_url, Transition(None))
        with ThreadPoolExecutor(9) as pool, started[3].client() as client:
            running = pool.submit(loop.run)
            for user in users:
                sent = {"type": "view_item", "user_id": user, "items": [{"item_id": "A"}]}
                client.post_event(sent | {"consent": {"email": True}}, return_profile=True)
            rule = {"rule": {"event": {"type": "view_item"}}, "consent": []}
            client.audiences.put("lookers", rule)
            client.http.put("/v1/campaigns/spring", json={
                "audience": "lookers", "offer": {"id": "o"}, "channel": "email", "window": WINDOW,
                "control": {"holdout": 0}, "budget": {"messages": most},
                "caps": [{"most": 2, "within": "1d"}],
            }).raise_for_status()  # fmt: skip
            answers = []
            for n, (user, decision) in enumerate(asks):
                answers.append(pool.submit(decide, started[n % 3], user, decision))
                if n in {20, 32, 44}:
                    answers[n - 5].result()
                    started[{20: 0, 32: 1, 44: 2}[n]].kill()
            first = [one.result() for one in answers]
            last = [decide_at_last(started[3], *ask) for ask in asks]
            loop.stop()
            running.result(timeout=20)
    assert None in first
    for before, after in zip(first, last, strict=True):
        assert before in (None, after)
    treated = [(a["user_id"], a["decision_id"]) for a in last if a["arm"] == "treated"]
    assert len(treated) == most == int(store_client.hget(state_key("spring"), "messages") or 0)
    assert max(Counter(user for user, _ in treated).values()) <= 2
    events = logged(store_client, shop.home)
    messages = [e for e in events if e.type == "message_sent"]
    decisions = [e for e in events if e.type == "campaign_decision"]
    assert len({e.id for e in messages}) == len(messages) == most
    assert len({e.id for e in decisions}) == len(decisions) == len(asks)
    by_arm = Counter(e.properties["arm"] for e in decisions if e.properties)
    assert by_arm["treated"] == most
