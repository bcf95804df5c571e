"""One fault, tried many times in a stream of reports."""

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.ledger import Comparison, Ledger
from tests.faults.workers import Worker

RESULT = "fault"
"""The name under which what came of a fault travels to the table at the end of the run."""

LOOKED_AT_AGAIN = 20
"""Of how many tries the reports are looked at once more at the end."""

Fault = Callable[[Random], Awaitable[None]]
"""Puts a fault into the world, and lifts it."""


@dataclass
class Result:
    """What came of one fault."""

    fault: str
    tried: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: list[float] = field(default_factory=list)
    """From when the fault was lifted until the database had everything, for each try."""


@dataclass
class Trials:
    """How often a fault is tried, and by which seed."""

    request: pytest.FixtureRequest
    tries: int
    seed: int
    until: float = math.inf
    """The moment, by the monotonic clock, after which no further try begins."""

    async def endure(
        self,
        fault_name: str,
        fault: Fault,
        ledger: Ledger,
        *workers: Worker,
        seconds: float = 1,
        devices: int = 40,
        at_rest: Callable[[], Awaitable[None]] | None = None,
    ) -> Result:
        """Try a fault again and again while reports come in; after each, everything must be there once.

        A fault begins in the first third of the `seconds` over which a fleet of so many devices reports.
        Once a try is over and the workers have nothing to do, `at_rest` looks at them.
        At the end the workers are stopped in order, which must succeed and leave nothing in the queue; what is in
        the database must still be what it was after each of the last tries.
        """
        result = Result(fault_name)
        last: deque[Fleet] = deque(maxlen=LOOKED_AT_AGAIN)
        while result.tried < self.tries and time.monotonic() < self.until:
            seed = f"{self.seed}/{result.tried}"
            print(f"seed {seed}")  # noqa: T201
            random = Random(seed)  # noqa: S311
            fleet = Fleet(random, devices)
            last.append(fleet)
            publishing = asyncio.create_task(ledger.publish(fleet, seconds))
            try:
                await asyncio.sleep(random.uniform(0, seconds / 3))
                await fault(random)
                lifted = time.monotonic()
                await publishing
            finally:
                publishing.cancel()
            await ledger.caught_up()
            result.seconds.append(time.monotonic() - lifted)
            found = await ledger.compare(fleet)
            result.tried += 1
            result.lost += found.missing
            result.doubled += found.doubled
            self.record(result)
            logs = "\n".join(worker.log[-3000:] for worker in workers)
            assert (found.missing, found.doubled, found.wrong) == (0, 0, ""), f"seed {seed}: {found}\n{logs}"
            if at_rest is not None:
                await at_rest()
        for worker in workers:
            await worker.is_ready()  # one that was killed a moment ago may not have begun to listen to signals
            assert await worker.stop() == 0, worker.log[-3000:]
        assert await ledger.messages_left() == 0
        for fleet in last:
            assert await ledger.compare(fleet) == Comparison(0, 0, "")
        return result

    def record(self, result: Result) -> None:
        """Have the table at the end of the run show what came of a fault so far."""
        properties = self.request.node.user_properties
        properties[:] = [each for each in properties if each[0] != RESULT]
        properties.append((RESULT, json.dumps(vars(result))))
