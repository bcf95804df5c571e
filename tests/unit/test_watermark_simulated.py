"""Workers come, go, die and freeze at random: nothing counts as processed that is not."""

from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.model.watermark import (
    GONE_AFTER,
    Look,
    Phase,
    Progress,
    is_confirmed,
    known_consumers,
    of_this_time,
    processed_until,
)

HOUR = 3_600_000
"""In milliseconds."""


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
    """When the look began, by a clock that is never set back."""
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

    Now and then the database's clock is set back; live workers see that before it has caught up.
    """

    def __init__(self) -> None:
        self.now = 1_000 * HOUR
        """Moments are by this clock, which is never set back, unless stated otherwise."""
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
