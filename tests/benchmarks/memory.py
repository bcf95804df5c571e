"""The resident memory of a worker over a long backlog: it must end as it was after the first ten thousand."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.checking import check_database, check_tally
from tests.benchmarks.consuming import running
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage
from tests.benchmarks.traffic import Expected, Traffic

FIRST = 10_000
SLICE = 50_000
"""Messages that are made and published at a time."""
LOOK = 0.25


async def memory(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Resident bytes after the first messages and at the end, their ratio, and what was seen between."""
    steps.begin(2)
    steps.next(f"publishing {sizes.messages:,} messages")
    async with stage.scene() as scene:
        expected = Expected(0, 0, 0)
        for traffic in _slices(sizes.messages):
            await stage.broker.fill(scene.topology, traffic.messages)
            expected = expected.plus(traffic.expected)
        steps.next("consuming them")
        async with running(scene) as workers:
            began = await stage.broker.consumed_by(scene.topology, 1)
            [process] = workers.processes
            seen: list[tuple[int, int]] = []
            while not seen or seen[-1][0] < expected.received:
                assert process.poll() is None, "the worker ended"
                await asyncio.sleep(LOOK)
                seen.append((await workers.received(), _resident(process.pid)))
            ended = time.monotonic()
            check_tally(await workers.stop(), expected)
        await check_database(scene.database_url, expected)
    first = next(size for received, size in seen if received >= min(FIRST, expected.received))
    end = seen[-1][1]
    thinned = seen[:: max(1, len(seen) // 50)]
    return {
        "resident_bytes": {"first": first, "end": end, "peak": max(size for _, size in seen)},
        "ratios": {"end/first": end / first},
        "messages": expected.received,
        "rate": expected.received / (ended - began),
        "seen": [{"received": received, "bytes": size} for received, size in thinned],
    }


def _slices(messages: int) -> Iterator[Traffic]:
    """So many messages about ever new operations."""
    for seed, start in enumerate(range(0, messages, SLICE)):
        yield Traffic.of(min(SLICE, messages - start), 1_000 + seed)


def _resident(pid: int) -> int:
    """The bytes of a process that are in memory."""
    [line] = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1_024
