"""A storm of malformed messages: good ones get through, the worker's memory stays flat, every bad one is told."""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel

from tests.support.brokering import declared, messages_in, report
from tests.support.command import Deviceops

MEGABYTE = 1_000_000
GROWTH = 30 * MEGABYTE
"""How much more the worker's memory may be in the last third of the storm than in the one before."""


def bad(number: int) -> bytes:
    """One of the many ways to be wrong; no two are the same."""
    good = json.dumps(report())
    ways = [
        good[: -number % len(good)] + "…",
        good.replace("CREATED", f"FINE{number}"),
        json.dumps({**report(), "device_id": number}),
        json.dumps({**report(), "service_id": ""}),
        json.dumps({"operation_id": str(uuid4()), "note": "x" * 2_000}),
        json.dumps({**report(), "operation_id": f"operation {number}"}),
        json.dumps([number]),
        "",
    ]
    way = ways[number % len(ways)]
    return f"{number} ".encode() + b"\xff\xfe\x00" if way == "" else way.encode()


async def publish(channel: AbstractChannel, exchange: str, bodies: Iterator[bytes]) -> None:
    target = await channel.get_exchange(exchange)
    while window := list(islice(bodies, 500)):
        messages = [aio_pika.Message(body, message_id=str(uuid4()), delivery_mode=2) for body in window]
        await asyncio.gather(*(target.publish(message, "storm") for message in messages))


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in use: 0 once it has ended and nobody has waited for it yet."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def test_a_storm_of_malformed_messages_hides_nothing_and_fills_no_memory(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, full: bool
) -> None:
    """100,000 bad messages among 10,000 good ones with --full, a tenth of that every day."""
    good = 10_000 if full else 1_000
    deviceops = deviceops_on_broker
    exchange = await declared(deviceops, channel)
    bodies = (json.dumps(report()).encode() if n % 11 == 0 else bad(n) for n in range(11 * good))
    await publish(channel, exchange.name, bodies)

    memory: list[int] = []
    with deviceops.start("run", "--until-idle", "2", "--json") as worker:
        while worker.poll() is None:
            memory.append(resident(worker.pid))
            await asyncio.sleep(0.05)
        out, err = worker.communicate()

    assert worker.returncode == 0, err
    summary = json.loads(out)
    assert (summary["received"], summary["applied"]) == (11 * good, good)
    assert summary["dead_lettered"] == {"malformed": 10 * good}
    assert await messages_in(channel, f"{exchange.name}.reports") == 0
    third = len(memory) // 3
    before, after = statistics.median(memory[third:-third]), statistics.median(memory[-third:])
    print(f"memory: {before / MEGABYTE:.0f} MB in the middle third, {after / MEGABYTE:.0f} MB in the last")  # noqa: T201
    assert after - before < GROWTH
    details = {group["detail"] for group in deviceops.document("dead-letters", "list", "--group-by", "detail")}
    told = ("body: ", "state: ", "device_id: ", "service_id: ", "operation_id: ")
    assert all(detail.startswith(told) and "\n" not in detail and len(detail) < 300 for detail in details)
    began = time.monotonic()
    [group] = deviceops.document("dead-letters", "list", "--group-by", "reason")
    print(f"grouping {group['count']:,} dead letters: {time.monotonic() - began:.2f} s with the start")  # noqa: T201
    assert group["count"] == 10 * good
