"""What counts as processed: never a message that still waits, is held by somebody, or went back into the queue."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.amqp import watermarks
from worker.amqp.batching import Batcher
from worker.amqp.watermarks import Watermarks
from worker.dependency import Dependency
from worker.model.watermark import (
    GONE_AFTER,
    Look,
    Own,
    Phase,
    Progress,
    is_confirmed,
    known_consumers,
    of_this_time,
    processed_until,
)

HOUR = 3_600_000
NOW = 1_000_000
"""The database's clock, in milliseconds."""
LOOK = Look(NOW - 2_000, NOW - 1_900, 2)


def row(
    number: int,
    settled_until: int = NOW - 100,
    seen_at: int = NOW - 100,
    phase: Phase = Phase.CONSUMING,
    processed_until: int = 0,
    queue: str = "reports",
) -> Progress:
    return Progress(UUID(int=number), queue, phase, seen_at, settled_until, processed_until)


def test_a_look_is_confirmed_once_all_consumers_have_settled_what_they_had_by_its_end() -> None:
    assert is_confirmed(LOOK, [row(1), row(2)], NOW) is True
    assert is_confirmed(LOOK, [row(1), row(2, settled_until=LOOK.ended)], NOW) is True
    assert is_confirmed(LOOK, [row(1), row(2, settled_until=LOOK.ended - 1)], NOW) is False
    assert is_confirmed(LOOK, [row(1), row(2), row(3, settled_until=0)], NOW) is False  # it came later


def test_who_drains_has_to_settle_as_well_and_is_not_the_consumer_that_the_broker_counts() -> None:
    draining = row(2, phase=Phase.DRAINING)
    assert is_confirmed(LOOK, [row(1), draining], NOW) is None
    alone = LOOK._replace(consumers=1)
    assert is_confirmed(alone, [row(1), draining], NOW) is True
    assert is_confirmed(alone, [row(1), draining._replace(settled_until=LOOK.began)], NOW) is False


def test_a_look_counts_for_nothing_while_the_broker_knows_a_consumer_that_says_nothing() -> None:
    assert is_confirmed(LOOK, [row(1)], NOW) is None
    assert is_confirmed(LOOK._replace(consumers=0), [], NOW) is True
    assert known_consumers([row(1), row(2, phase=Phase.DRAINING), row(3, phase=Phase.GONE)], NOW) == 1
    assert known_consumers([row(1, seen_at=NOW - GONE_AFTER), row(2, seen_at=NOW - GONE_AFTER + 1)], NOW) == 1


@pytest.mark.parametrize("phase", [Phase.CONSUMING, Phase.DRAINING])
def test_a_look_counts_for_nothing_if_a_consumer_was_lost_since_it_began(phase: Phase) -> None:
    alone = LOOK._replace(consumers=1)
    silent = NOW - GONE_AFTER
    assert is_confirmed(alone, [row(1), row(2, seen_at=silent, phase=phase)], NOW) is None
    lost_before = LOOK.began - GONE_AFTER
    assert is_confirmed(alone, [row(1), row(2, seen_at=lost_before, phase=phase)], NOW) is None
    assert is_confirmed(alone, [row(1), row(2, seen_at=lost_before - 1, phase=phase)], NOW) is True


def test_a_look_counts_for_nothing_if_a_consumer_has_left_since_it_began() -> None:
    alone = LOOK._replace(consumers=1)
    assert is_confirmed(alone, [row(1), row(2, seen_at=LOOK.began, phase=Phase.GONE)], NOW) is None
    assert is_confirmed(alone, [row(1), row(2, seen_at=LOOK.began - 1, phase=Phase.GONE)], NOW) is True


def test_a_look_counts_for_nothing_once_the_clock_was_set_back() -> None:
    assert is_confirmed(LOOK, [row(1), row(2)], LOOK.began - 1) is None


@pytest.mark.parametrize("phase", Phase)
def test_who_spoke_before_the_clock_was_set_back_says_nothing(phase: Phase) -> None:
    before = row(3, seen_at=NOW + 1, settled_until=NOW, phase=phase)
    assert known_consumers([row(1), row(2), before], NOW) == 2
    assert is_confirmed(LOOK, [row(1), row(2), before], NOW) is True  # it holds nothing back
    assert is_confirmed(LOOK, [row(1), before], NOW) is None  # nor does it speak for one that may hold messages


def test_what_is_processed_is_known_only_if_it_is_of_every_queue() -> None:
    rows = [row(1, queue="a", processed_until=5), row(2, queue="a", processed_until=7)]
    assert processed_until(rows, ["a"], NOW) == 7  # whoever has found it
    assert processed_until(rows, ["a", "b"], NOW) is None
    assert processed_until([*rows, row(1, queue="b", processed_until=6)], ["a", "b"], NOW) == 6
    assert processed_until([*rows, row(1, queue="b", processed_until=0)], ["a", "b"], NOW) is None
    assert processed_until([*rows, row(1, queue="c", processed_until=1)], ["a"], NOW) == 7
    gone = row(1, queue="a", processed_until=8, phase=Phase.GONE, seen_at=9)
    assert processed_until([*rows, gone], ["a"], NOW) == 8  # it stays true
    assert processed_until(rows, [], NOW) is None
    assert processed_until([], ["a"], NOW) is None


def test_nothing_is_known_of_a_time_to_come() -> None:
    """A clock that was set back, or the one of a standby that took over."""
    assert processed_until([row(1, processed_until=NOW + 1)], ["reports"], NOW) is None
    assert processed_until([row(1, processed_until=NOW)], ["reports"], NOW) == NOW
    rows = [row(1, processed_until=NOW + 3_600_000), row(2, processed_until=NOW - 1)]
    assert processed_until(rows, ["reports"], NOW) == NOW - 1


@dataclass
class Consumer:
    """A worker with one queue: what it holds, and what it has said."""

    held: list[tuple[int, int]] = field(default_factory=list)
    """Messages: when each was published, and delivered."""
    sampled_at: int = 0
    is_consuming: bool = True
    """Whether more is delivered."""
    is_connected: bool = True
    is_alive: bool = True
    row: Progress | None = None
    look: Look | None = None
    looked_at: int = 0
    """When the look began by a clock that nobody sets."""
    processed_until: int = 0

    @property
    def settled_until(self) -> int:
        """As it knows: it asks the broker now and then, and nothing that was delivered before is missed."""
        return min([self.sampled_at, *(delivered_at for _, delivered_at in self.held)])

    @property
    def is_counted(self) -> bool:
        """Whether the broker counts it among the consumers."""
        return self.is_connected and (self.is_consuming or bool(self.held))


class Queue:
    """A queue whose workers come, go, die, freeze, and lose their connection, in any order and at any time.

    Now and then the database's clock is set back, which whoever lives sees before it has caught up.
    """

    def __init__(self) -> None:
        self.now = 1_000 * HOUR
        """Where nothing else is said, moments are by this clock, which nobody sets."""
        self.behind = 0
        """By how much the database's clock was set back."""
        self.ready: list[int] = []
        """When each message that waits was published."""
        self.published: dict[int, int] = {}
        """The same by the database's clock, of all messages."""
        self.consumers: list[Consumer] = []
        self.confirmed = 0

    def pass_time(self, milliseconds: int = 1) -> int:
        self.now += milliseconds
        return self.now

    def clock(self) -> int:
        """The database's."""
        return self.pass_time() - self.behind

    def set_back(self, _: Consumer) -> None:
        if any(each.is_alive for each in self.consumers):
            self.behind += HOUR
            for each in self.consumers:
                self.measure(each)

    def catch_up(self, _: Consumer) -> None:
        self.pass_time(HOUR)

    def publish(self, _: Consumer) -> None:
        self.ready.append(self.pass_time())
        self.published[self.now] = self.now - self.behind

    def wait(self, _: Consumer) -> None:
        self.pass_time(500)

    def wait_for_long(self, _: Consumer) -> None:
        self.pass_time(GONE_AFTER)

    def come(self, _: Consumer) -> None:
        if len(self.consumers) < MOST:
            self.consumers.append(Consumer())

    def deliver(self, consumer: Consumer) -> None:
        """Also to one that is frozen: the broker notices that late."""
        if self.ready and consumer.is_connected and consumer.is_consuming:
            consumer.held.append((self.ready.pop(0), self.pass_time()))

    def settle(self, consumer: Consumer) -> None:
        if consumer.is_alive and consumer.is_connected and consumer.held:
            consumer.held.pop(0)

    def cancel(self, consumer: Consumer) -> None:
        consumer.is_consuming = consumer.is_consuming and not consumer.is_alive

    def freeze(self, consumer: Consumer) -> None:
        consumer.is_alive = False

    def requeue(self, consumer: Consumer) -> None:
        """The connection is lost, of one that lives or one that does not; it has settled no more than before."""
        consumer.sampled_at = consumer.settled_until
        consumer.is_connected = False
        self.ready[:0] = [published_at for published_at, _ in consumer.held]
        consumer.held.clear()

    def leave(self, consumer: Consumer) -> None:
        if consumer.is_alive:
            self.requeue(consumer)
            consumer.is_alive = False
            if consumer.row is not None:
                consumer.row = consumer.row._replace(phase=Phase.GONE, seen_at=self.clock())

    def measure(self, consumer: Consumer, takes: int = 1) -> None:
        """A round of a worker: it says how far it is, judges its last look, and looks again."""
        if not consumer.is_alive:
            return
        clock = self.clock()
        phase = Phase.CONSUMING if consumer.is_consuming else Phase.DRAINING
        if consumer.processed_until > clock:
            consumer.processed_until = 0
        settled_until = consumer.settled_until - self.behind
        consumer.row = Progress(UUID(int=0), "", phase, clock, settled_until, consumer.processed_until)
        for each in self.consumers:
            if each.row is not None and not of_this_time([each.row], clock):
                each.row = None
        rows = [each.row for each in self.consumers if each.row is not None]
        self.assert_processed_until(processed_until(rows, [""], clock))
        if consumer.look is not None:
            found = is_confirmed(consumer.look, rows, clock)
            if found:
                self.assert_processed(consumer.looked_at)
                self.confirmed += 1
                consumer.processed_until = consumer.look.began
            if found is not False:
                consumer.look = None
        began = self.now
        if consumer.is_connected and consumer.is_consuming:
            consumer.sampled_at = self.pass_time(takes)
            counted = sum(each.is_counted for each in self.consumers)
            if consumer.look is None and not self.ready and counted <= known_consumers(rows, clock):
                consumer.look = Look(clock, self.pass_time(takes) - self.behind, counted)
                consumer.looked_at = began

    def measure_slowly(self, consumer: Consumer) -> None:
        self.measure(consumer, takes=400)

    def waiting(self) -> list[int]:
        """When each message was published that is not processed."""
        return self.ready + [published_at for each in self.consumers for published_at, _ in each.held]

    def assert_processed(self, until: int) -> None:
        assert all(published_at >= until for published_at in self.waiting())

    def assert_processed_until(self, clock: int | None) -> None:
        """The same of a moment by the database's clock."""
        if clock is not None:
            assert all(self.published[published_at] >= clock for published_at in self.waiting())


MOST = 8
"""Workers at a queue, dead ones included."""
STEPS = [
    *[Queue.measure] * 16,
    *[Queue.publish, Queue.deliver, Queue.settle] * 6,
    *[Queue.measure_slowly, Queue.wait, Queue.come] * 2,
    *[Queue.wait_for_long, Queue.cancel, Queue.freeze, Queue.requeue, Queue.leave],
    *[Queue.set_back, Queue.catch_up],
]
"""Some of them more often than others."""


@settings(max_examples=100)
@given(st.integers(0, 2**64))
def test_nothing_is_confirmed_while_a_message_from_before_the_look_is_not_processed(seed: int) -> None:
    """In a hundred simulations each: some faults take several coincidences."""
    random = Random(seed)  # noqa: S311  # what hypothesis draws itself is too much alike
    for _ in range(100):
        queue = Queue()
        queue.come(Consumer())
        for step in random.choices(STEPS, k=300):
            step(queue, random.choice(queue.consumers[-3:]))  # of those that came last, more are alive


def test_the_simulation_confirms_often_enough_to_mean_something() -> None:
    queue = Queue()
    queue.come(Consumer())
    for _ in range(20):
        for step in (Queue.publish, Queue.deliver, Queue.measure, Queue.settle, Queue.measure, Queue.measure):
            step(queue, queue.consumers[0])
    assert queue.confirmed >= 20


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
        """Nobody is told."""


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
