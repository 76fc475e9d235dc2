"""The bench of erasures: who it says is erased, is, and every stage is timed."""

from collections.abc import Callable, Iterator

import pytest
from gateway_thread import Api

from services.client import ApiError
from services.lab.bench.erase import EraseLoad, measure_running
from services.update import updater


@pytest.fixture(scope="module")
def api(make_api: Callable[..., Api]) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "SETTLE_MS", 0)
        yield make_api(archive_every_s=0.1)


def test_users_are_erased_beside_ingest_and_every_stage_is_timed(api: Api) -> None:
    load = EraseLoad(events=600, per_user=10, singles=2, batches=(1, 3))
    with api.client() as client:
        found = measure_running(client, api.settings.home, load, lambda *_: None)
        done = client.privacy.erasures()["erasures"]
        assert [one["users"] for one in done] == [3, 1, 1, 1]
        gone = [f"shopper-{load.users - 1 - n}" for n in range(6)]
        for user in gone:
            with pytest.raises(ApiError, match="410"):
                client.profile(user)
        assert client.profile("shopper-0")
    assert found["stages_s"].keys() == {"wait", "log", "store", "files", "store_files"}
    assert 0 < found["single_s"]["p50"] <= found["single_s"]["max"]
    assert found["batch_s"].keys() == {"1", "3"}
    assert (found["failures_beside"], found["archive_parts"] > 0) == ({}, True)
    assert found["events_beside"] > 0
