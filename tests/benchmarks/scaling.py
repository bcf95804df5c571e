"""A model of several workers: what they settle on a machine with given processors, from measured times.

Each lane of a worker takes one batch after another: Python outside of the transaction, the batch lock if any, then
statement after statement Python and the database's processor, and at last the database's waiting for the disk. The
lanes of a worker take turns on one thread, and all threads share the processors equally. The broker works beside.

How a batch's time is divided among its statements is drawn by lot: were it the same for all, each of two lanes
would always work while the other one waits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

EPSILON = 1e-9
STATEMENTS = 12
"""Of a batch, from BEGIN to COMMIT: ten to fifteen, counted."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a batch, from a run of one worker, and how many lanes a worker has."""

    outside: float
    """The worker's, before and after the transaction."""
    inside: float
    """The worker's, while the transaction waits for it."""
    database: float
    """The database's processor."""
    waiting: float
    """For the disk, without a processor."""
    broker: float
    """Of a processor, for what works beside: the broker, and what measures."""
    reports: float
    """Reports of a batch."""
    lanes: int = 1
    has_lock: bool = True


@dataclass(slots=True, eq=False)
class _Work:
    """Something that takes time: of a thread if it has one, else none of a processor."""

    thread: object | None
    left: float
    then: Callable[[], None]


@dataclass(slots=True)
class _Machine:
    """Threads that share processors; what needs none takes its time as it is."""

    processors: float
    now: float = 0
    works: list[_Work] = field(default_factory=list)

    def run(self, until: Callable[[], bool]) -> None:
        """Do what is to be done, until a condition holds."""
        while not until():
            first = {work.thread: work for work in reversed(self.works)}  # of each thread, the others wait
            speed = min(1, self.processors / max(len(first.keys() - {None}), 1))
            rates = {
                work: 1 if work.thread is None else speed
                for work in self.works
                if work.thread is None or first[work.thread] is work
            }
            step = min(work.left / rate for work, rate in rates.items())
            self.now += step
            for work, rate in rates.items():
                work.left -= step * rate
            done = [work for work in self.works if work.left < EPSILON]
            self.works = [work for work in self.works if work.left >= EPSILON]
            for work in done:
                work.then()


def rate(times: Times, workers: int, processors: float, batches: int = 400) -> float:
    """Reports per second of a number of workers on a number of processors."""
    machine = _Machine(processors)
    settled = 0
    queue: list[Callable[[], None]] = []
    is_free = True
    random = Random(1)  # the same for the same arguments

    def do(thread: object | None, seconds: float, then: Callable[[], None]) -> None:
        machine.works.append(_Work(thread, max(seconds, 2 * EPSILON), then))

    def acquire(enter: Callable[[], None]) -> None:
        nonlocal is_free
        if not times.has_lock:
            enter()
        elif is_free:
            is_free = False
            enter()
        else:
            queue.append(enter)

    def release() -> None:
        nonlocal is_free
        if queue:
            queue.pop(0)()
        else:
            is_free = True

    def live(thread: object) -> None:
        def begin() -> None:
            do(object(), times.broker, lambda: None)
            read(_divided(times.outside, random))

        def read(parts: Iterator[float]) -> None:
            if (part := next(parts, None)) is None:
                acquire(lambda: write(_divided(times.inside, random), _divided(times.database, random)))
            else:
                do(thread, part, lambda: read(parts))

        def write(own: Iterator[float], of_database: Iterator[float]) -> None:
            if (part := next(own, None)) is None:
                do(None, times.waiting, end)
            else:
                do(thread, part, lambda: do(object(), next(of_database), lambda: write(own, of_database)))

        def end() -> None:
            nonlocal settled
            settled += 1
            if times.has_lock:
                release()
            begin()

        begin()

    for thread in [object() for _ in range(workers)]:
        for _ in range(times.lanes):
            live(thread)
    machine.run(lambda: settled >= batches // 4)
    began, at_first = machine.now, settled
    machine.run(lambda: settled >= batches)
    return (settled - at_first) * times.reports / (machine.now - began)


def _divided(seconds: float, random: Random) -> Iterator[float]:
    """The parts of a time, one for each statement."""
    cuts = sorted(random.random() for _ in range(STATEMENTS - 1))
    return (seconds * (end - begin) for begin, end in zip([0.0, *cuts], [*cuts, 1.0], strict=True))
