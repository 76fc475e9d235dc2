"""The bench of campaigns: what it prepares is what it says, and it counts what is answered."""

from collections.abc import Callable

import pytest
from gateway_thread import Api

from services.lab.bench import campaigns


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def test_decisions_repeats_and_trivial_requests_are_timed_in_turns(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "USERS", 10)
    monkeypatch.setattr(campaigns, "WARM_UP", 2)
    with api.client() as client:
        users = campaigns._prepare(client, 20)
        taken = campaigns._single(client, users, 6)
        assert {name: len(times) for name, times in taken.items()} == {
            "trivial": 6, "decide": 6, "repeat": 6,
        }  # fmt: skip
        before = client.campaigns.get("bench")
        held_out = before["decided"] - before["spent"]["messages"]
        assert before["decided"] == 8
        assert 0 <= held_out < 8
        rate = campaigns._rps(client, users, 4, 0.3)
        after = client.campaigns.get("bench")
    assert rate * 0.3 == pytest.approx(after["decided"] - before["decided"], abs=1)
    assert after["spent"]["messages"] <= 20
