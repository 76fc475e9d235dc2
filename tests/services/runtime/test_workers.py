"""Work aside: what is long is another thread's, and refused rather than piled up."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from feature_repo.errors import BusyError
from services.runtime.workers import MANY, Workers


def _thread(_: Sequence[int]) -> int:
    return threading.get_ident()


@pytest.mark.parametrize("count", [0, MANY, MANY + 1])
def test_many_records_are_handled_aside_and_few_where_they_are(count: int) -> None:
    async def ask() -> bool:
        found = await Workers("test", 1, 1).run_many(_thread, range(count))
        return found != threading.get_ident()

    assert asyncio.run(ask()) == (count > MANY)


@pytest.mark.parametrize("count", [MANY, MANY + 1])
def test_many_records_are_given_back_aside(count: int) -> None:
    workers, records = Workers("test", 1, 0), list(range(count))
    workers.free(records)
    asyncio.run(workers.run(bool))  # waits for its turn behind it
    assert len(records) == (0 if count > MANY else count)


def test_what_failing_work_held_is_given_back_aside() -> None:
    freed = list[int]()

    class Held:
        def __del__(self) -> None:
            freed.append(threading.get_ident())

    def fail() -> None:
        held = Held()
        raise ValueError(type(held).__name__)

    async def ask() -> None:
        with pytest.raises(ValueError, match="Held"):
            await Workers("test", 1, 0).run(fail)

    asyncio.run(ask())
    assert freed
    assert threading.get_ident() not in freed


def test_more_than_may_wait_is_refused_and_what_is_cancelled_waits_no_longer() -> None:
    let, pool = threading.Event(), Workers("tests", 1, 1)

    async def run() -> None:
        first = asyncio.create_task(pool.run(let.wait))
        second = asyncio.create_task(pool.run(let.wait))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="1 requests wait for tests"):
            await pool.run(let.wait)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(pool.run(let.wait))
        await asyncio.sleep(0)
        let.set()
        assert await first
        assert await third

    asyncio.run(run())
