"""Simulated roll-outs: when each device of an operation settles, in seconds since the first was dispatched.

Of every kind several, from 30 devices to 100,000, from five minutes to twenty hours, each with a seed of its own.
Some cannot be foreseen: a pause at night before it begins, and devices that all began at once, of which a few take
several times as long as the others.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from random import Random
from typing import NamedTuple

MINUTE, HOUR = 60, 3_600
SIZES = 30, 100, 300, 1_000, 5_000, 20_000, 100_000


class RollOut(NamedTuple):
    """A roll-out of one kind."""

    kind: str
    settled: Sequence[float]
    """In order, in seconds."""


def _arrivals(random: Random, devices: int, rate: Callable[[float], float], pieces: int = 1_000) -> list[float]:
    """Moments from 0 to 1 at which devices settle, at a rate that depends on the moment.

    They are a little more regular than by pure chance: a device begins when another one is done.
    """
    until = [0.0]
    for piece in range(pieces):
        until.append(until[-1] + rate((piece + 0.5) / pieces))
    drawn = [random.gammavariate(3, 1) for _ in range(devices)]
    scale, reached, piece, found = until[-1] / sum(drawn), 0.0, 0, []
    for each in drawn:
        reached += each * scale
        while piece < pieces - 1 and until[piece + 1] < reached:
            piece += 1
        share = (reached - until[piece]) / max(until[piece + 1] - until[piece], 1e-9)
        found.append((piece + min(share, 1)) / pieces)
    return found


def _steady(random: Random, devices: int) -> list[float]:
    return _arrivals(random, devices, lambda _: 1)


def _fluctuating(random: Random, devices: int) -> list[float]:
    """The rate wanders, by a quarter up or down, over some twentieth of the time."""
    level, rates = random.gauss(0, 0.3), []
    for _ in range(100):
        rates.append(math.exp(level))
        level = 0.7 * level + random.gauss(0, 0.3 * math.sqrt(1 - 0.49))
    return _arrivals(random, devices, lambda at: rates[min(int(at * 100), 99)])


def _in_flight(random: Random, devices: int) -> list[float]:
    """A fixed number in progress at a time, each with a random duration."""
    free = [0.0] * max(devices // random.randint(10, 40), 1)
    found = []
    for _ in range(devices):
        found.append(heapq.heappop(free) + random.lognormvariate(0, 0.4))
        heapq.heappush(free, found[-1])
    return found


def _waves(random: Random, devices: int) -> list[float]:
    """The next wave begins a while after the last device of the one before."""
    found: list[float] = []
    begins, pause, number = 0.0, random.uniform(0.3, 2), random.randint(8, 20)
    for wave in range(number):
        size = devices * (wave + 1) // number - devices * wave // number
        found += [begins + 0.2 + 0.3 * random.lognormvariate(0, 0.4) for _ in range(size)]
        begins = max(found, default=0) + pause * random.uniform(0.8, 1.2)
    return found


def _timed_waves(random: Random, devices: int) -> list[float]:
    """A wave begins every so often."""
    number = random.randint(6, 16)
    return [device * number // devices + min(random.expovariate(6), 0.95) for device in range(devices)]


def _slow_start(random: Random, devices: int) -> list[float]:
    """The rate rises to several times what it was at first."""
    until, first = random.uniform(0.2, 0.35), random.uniform(0.1, 0.4)
    return _arrivals(random, devices, lambda at: first + (1 - first) * min(at / until, 1))


def _canaries(random: Random, devices: int) -> list[float]:
    """A few first, for a good while, then the others."""
    part, until = random.uniform(0.01, 0.05), random.uniform(0.1, 0.25)
    return _arrivals(random, devices, lambda at: part / until if at < until else (1 - part) / (1 - until))


def _slowing(random: Random, devices: int) -> list[float]:
    """The rate falls steadily, to little more than half of what it was."""
    last = random.uniform(0.45, 0.75)
    return _arrivals(random, devices, lambda at: 1 - (1 - last) * at)


def _long_tail(random: Random, devices: int) -> list[float]:
    """The last ones settle at a fraction of the rate."""
    part, slow = random.uniform(0.02, 0.08), random.uniform(0.2, 0.4)
    tail = part / slow / (1 - part + part / slow)
    return _arrivals(random, devices, lambda at: 1 if at < 1 - tail else slow)


def _with_pause(random: Random, devices: int, share: float) -> list[float]:
    begins = random.uniform(0.1, 0.9)
    return [at + (share / (1 - share) if at > begins else 0) for at in _steady(random, devices)]


def _night(random: Random, devices: int) -> list[float]:
    """Nothing settles for six to eight hours of twenty."""
    return _with_pause(random, devices, random.uniform(0.3, 0.4))


def _outage(random: Random, devices: int) -> list[float]:
    """Nothing settles for some tenth of the time."""
    return _with_pause(random, devices, random.uniform(0.06, 0.13))


def _in_bulk(random: Random, devices: int) -> list[float]:
    """Reports come together, every so often."""
    number = random.randint(20, 60)
    return [math.ceil(at * number) for at in _steady(random, devices)]


def _all_at_once(random: Random, devices: int) -> list[float]:
    """All are dispatched at once; the slowest take several times as long as most."""
    return [random.lognormvariate(0, random.uniform(0.3, 0.6)) for _ in range(devices)]


KINDS = {
    _steady: 5,
    _fluctuating: 5,
    _in_flight: 5,
    _waves: 5,
    _timed_waves: 5,
    _slow_start: 3,
    _canaries: 3,
    _slowing: 5,
    _long_tail: 4,
    _night: 2,
    _outage: 3,
    _in_bulk: 3,
    _all_at_once: 2,
}
"""How many there are of each kind."""


def rollouts(seed: int = 0) -> Iterator[RollOut]:
    """Fifty roll-outs, the same for the same seed."""
    sizes = cycle(SIZES)
    for simulate, number in KINDS.items():
        for which in range(number):
            random = Random(f"{seed} {simulate.__name__} {which}")  # noqa: S311
            duration = math.exp(random.uniform(math.log(5 * MINUTE), math.log(20 * HOUR)))
            if simulate is _night:
                duration = 20 * HOUR
            if simulate in (_waves, _timed_waves):
                duration = max(duration, 20 * MINUTE)
            settled = sorted(simulate(random, next(sizes)))
            yield RollOut(simulate.__name__.strip("_"), [at * duration / settled[-1] for at in settled])
