"""How far a worker says that it has come with its queues, as the broker and the database answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from worker.amqp import watermarks
from worker.amqp.batching import Batcher
from worker.amqp.watermarks import Watermarks
from worker.dependency import Dependency
from worker.model.watermark import (
    Own,
    Progress,
)


class Store:
    """How far this worker has come, on a database that takes a while to answer."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.behind = 0
        """By how much the clock was set back."""
        self.said: list[Own] = []

    async def renew(self, worker_id: UUID, own: Sequence[Own]) -> tuple[int, Sequence[Progress]]:
        self.said = [*own]
        await asyncio.sleep(self.delay / 2)
        clock = milliseconds(asyncio.get_running_loop().time()) - self.behind
        rows = [
            Progress(worker_id, queue, phase, clock, milliseconds(settled_at) - self.behind, known)
            for queue, phase, settled_at, known in own
        ]
        await asyncio.sleep(self.delay / 2)
        return clock, rows

    async def leave(self, worker_id: UUID) -> None:
        """Do nothing: there are no other workers."""


def milliseconds(seconds: float) -> int:
    return int(1_000 * seconds)


class Subscriptions:
    """One worker's, and what the broker says of the queue."""

    def __init__(self) -> None:
        self.all = [new_subscription()]
        self.ready, self.consumers = 0, 1
        self.database = Dependency("database", "", "")
        self.store = Store()
        self.watermarks = self.begun()

    def begun(self, grace: float = 0) -> Watermarks:
        return Watermarks(self.store, lambda: ["q"], lambda: self.all, self.inspect, grace, self.database)

    async def inspect(self, _: Any) -> Any:
        await asyncio.sleep(0.001)
        return SimpleNamespace(message_count=self.ready, consumer_count=self.consumers)

    async def limit_after(self, rounds: int) -> int | None:
        for _ in range(rounds):
            await self.watermarks._measure()
            await asyncio.sleep(0.005)
        return self.limit()

    def limit(self) -> int | None:
        return self.watermarks.limit(milliseconds(asyncio.get_running_loop().time()))


def new_subscription() -> Any:
    return SubscriptionLike("q", Batcher())


@dataclass(eq=False)
class SubscriptionLike:
    queue: str
    batcher: Batcher
    acknowledged: int = 0
    is_released: bool = False


async def test_what_is_empty_and_settled_is_processed_until_the_look() -> None:
    there = Subscriptions()
    began = milliseconds(asyncio.get_running_loop().time())
    assert await there.limit_after(1) is None
    found = await there.limit_after(2)
    assert found is not None
    assert began <= found <= milliseconds(asyncio.get_running_loop().time())


async def test_nothing_is_processed_while_anything_waits_or_is_held() -> None:
    there = Subscriptions()
    there.ready = 1
    assert await there.limit_after(3) is None
    there.ready = 0
    there.all[0].batcher.received = 1
    assert await there.limit_after(3) is None
    there.all[0].acknowledged = 1
    assert await there.limit_after(3) is not None


async def test_nothing_is_processed_while_an_unknown_consumer_may_hold_something() -> None:
    there = Subscriptions()
    there.consumers = 2
    assert await there.limit_after(3) is None


async def test_a_queue_that_is_consumed_again_is_not_settled_before_what_was_held_of_it() -> None:
    there = Subscriptions()
    await there.limit_after(1)
    before = there.all[0]
    before.batcher.received, before.is_released = 1, True
    there.all.append(new_subscription())
    assert await there.limit_after(3) is None
    before.acknowledged = 1
    there.all.remove(before)
    assert await there.limit_after(3) is not None


async def test_a_slow_database_makes_nothing_look_settled_that_is_not() -> None:
    """What is delivered between two rounds was not there in the first: its look ended later than it seems."""
    there = Subscriptions()
    there.store.delay = 0.2
    await there.limit_after(1)
    look = there.watermarks._known["q"].look
    assert look is not None
    assert look.ended >= milliseconds(asyncio.get_running_loop().time())


async def test_grace_is_time_of_consuming_that_nothing_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermarks, "INTERVAL", 0.01)
    there = Subscriptions()
    there.watermarks = there.begun(grace=0.3)
    there.limit()
    keeping = asyncio.create_task(there.watermarks.keep())
    try:
        await asyncio.sleep(0.2)
        assert there.limit() is None
        there.database.mark_down("away")
        await asyncio.sleep(0.2)
        there.database.mark_up()
        await asyncio.sleep(0.2)
        assert there.limit() is None  # longer than the grace in all, not in a row
        await asyncio.sleep(0.3)
        assert there.limit() is not None
    finally:
        keeping.cancel()


async def test_nothing_is_measured_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watermarks, "INTERVAL", 0.01)
    there = Subscriptions()
    keeping = asyncio.create_task(there.watermarks.keep())
    await asyncio.sleep(0.1)
    assert not there.store.said
    there.limit()
    await asyncio.sleep(0.1)
    assert there.store.said
    keeping.cancel()


async def test_what_was_found_is_forgotten_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock may be set back meanwhile, and catch up again."""
    monkeypatch.setattr(watermarks, "INTERVAL", 0.01)
    there = Subscriptions()
    assert await there.limit_after(3) is not None
    monkeypatch.setattr(watermarks, "WANTED", 0)
    keeping = asyncio.create_task(there.watermarks.keep())
    await asyncio.sleep(0.1)
    keeping.cancel()
    assert there.limit() is None


async def test_what_was_found_before_the_clock_was_set_back_is_forgotten() -> None:
    there = Subscriptions()
    assert await there.limit_after(3) is not None
    there.store.behind = 3_600_000
    there.ready = 1
    await there.limit_after(2)
    there.store.behind = 0  # it has caught up
    assert await there.limit_after(2) is None
