"""What it costs to tell others, and how soon they know: throughput by mode, and from commit to the listener.

A change counts from when its transaction wrote it, shortly before its commit, by the clock of the database, which
is on this machine.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.benchmarks.consuming import ROOT, rate_of_deviceops, running
from tests.benchmarks.latency import (
    Offered,
    Percentiles,
    announce,
    medians,
    no_collector,
    percentiles,
    publish,
    watch,
)
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Scene, Stage
from tests.benchmarks.traffic import Traffic
from tests.support.command import Deviceops
from tests.support.serving import serving
from worker.model.changes import Told

PATIENCE = 5
"""Seconds after the last report in which all have to be visible."""
LAST = 1
"""Seconds after that in which what was told before has come."""


async def changes(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Rates by what is told, their ratios to telling nothing, and milliseconds from commit to listener."""
    traffic = Traffic.of(sizes.reports, seed=1)
    steps.begin(sizes.rounds * (len(Told) + 2))
    watching = f"{sizes.followers:,} followers, {sizes.pages:,} pages"
    seeds = count(9_000)
    rounds: list[dict[str, float]] = []
    latencies: list[Percentiles | None] = []
    beside: list[dict[str, Percentiles | None]] = []
    for number in range(sizes.rounds):
        found = {}
        for told in [*Told][:: -1 if number % 2 else 1]:
            steps.next(f"round {number + 1}: {told}")
            found[told.value] = await rate_of_deviceops(stage, traffic, settings={"changes": told.value})
        rounds.append(found)
        steps.next(f"round {number + 1}: to a listener at {sizes.reports_beside:,} reports a second")
        offered = Offered.at(sizes.reports_beside, sizes.seconds, next(seeds))
        with no_collector():
            latencies.append(percentiles(await _to_listener(stage, offered)))
        steps.next(f"round {number + 1}: {watching}")
        with no_collector():
            beside.append(await _beside_others(stage, sizes, seeds))
    return {
        "rates": {told.value: statistics.median(each[told.value] for each in rounds) for told in Told},
        "ratios": {
            f"{told} / none": statistics.median(each[told.value] / each["none"] for each in rounds)
            for told in (Told.OPERATIONS, Told.ALL)
        }
        | _slower(beside, "with followers")
        | _slower(beside, "with pages"),
        "milliseconds_from_commit": {"to a listener": medians(latencies)},
        "milliseconds_of_reports": {name: medians([each[name] for each in beside]) for name in beside[0]},
        "rounds": rounds,
    }


def _slower(beside: Sequence[Mapping[str, Percentiles | None]], name: str) -> dict[str, float]:
    """The ratio of the 99th percentiles, in the rounds in which all reports became visible."""
    p99 = [(each["without"], each[name]) for each in beside]
    slower = [with_["p99"] / without["p99"] for without, with_ in p99 if without and with_]
    return {f"report p99 {name}/without": statistics.median(slower)} if slower else {}


async def _beside_others(stage: Stage, sizes: Sizes, seeds: "count[int]") -> dict[str, Percentiles | None]:
    """How long reports take until they are visible: alone, with followers of their operations, with open pages."""
    async with stage.scene() as scene, running(scene):
        await stage.broker.consumed_by(scene.topology, 1)
        connection = await asyncpg.connect(scene.postgresql_url)
        deviceops = Deviceops(stage.directory, {**scene.settings, "log_level": "INFO"})
        try:
            with serving(deviceops) as server:
                without = await _visible(stage, scene, connection, Offered.at(*_traffic(sizes, seeds)))
                offered = Offered.at(*_traffic(sizes, seeds))
                await announce(stage, scene, connection, offered)
                operations = [json.loads(each.body)["id"] for each in offered.announcements]
                url = urlsplit(server.url)
                arguments = (str(url.hostname), str(url.port), server.token, str(sizes.followers), *operations)
                async with _other("followers", *arguments) as followers:
                    with_followers = await _visible(stage, scene, connection, offered, is_announced=True)
                    assert json.loads(await _said(followers)) > 0, "no follower was sent anything"
                async with _other("pages", server.url, server.token, str(sizes.pages)) as pages:
                    with_pages = await _visible(stage, scene, connection, Offered.at(*_traffic(sizes, seeds)))
                    assert json.loads(await _said(pages)) > 0, "no page was sent anything"
        finally:
            await connection.close()
    return {"without": without, "with followers": with_followers, "with pages": with_pages}


def _traffic(sizes: Sizes, seeds: "count[int]") -> tuple[int, float, int]:
    return sizes.reports_beside, sizes.seconds, next(seeds)


async def _visible(
    stage: Stage, scene: Scene, connection: asyncpg.Connection, offered: Offered, *, is_announced: bool = False
) -> Percentiles | None:
    if not is_announced:
        await announce(stage, scene, connection, offered)
    start = time.monotonic() + 0.1
    publishing = asyncio.create_task(publish(stage, scene, offered, start))
    try:
        found = await watch(connection, offered, start, PATIENCE)
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])
    return None if found is None else percentiles([took for _, took in found])


async def _to_listener(stage: Stage, offered: Offered) -> Sequence[float] | None:
    """Seconds from each change to its receipt, with everything told."""
    async with stage.scene() as scene, running(scene, settings={"changes": "all"}):
        await stage.broker.consumed_by(scene.topology, 1)
        connection = await asyncpg.connect(scene.postgresql_url)
        try:
            async with _other("listener", stage.amqp_url, scene.topology.changes) as listener:
                await announce(stage, scene, connection, offered)
                await asyncio.sleep(LAST)
                since = time.time()
                visible = await _visible(stage, scene, connection, offered, is_announced=True)
                await asyncio.sleep(LAST)
                found = json.loads(await _said(listener))
        finally:
            await connection.close()
    return None if visible is None else [took for received, took in found if received >= since]


async def _said(process: asyncio.subprocess.Process) -> bytes:
    """What a process says at SIGTERM."""
    process.terminate()
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


@asynccontextmanager
async def _other(name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process, once it is ready, which ends with the block, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.benchmarks.consumers.{name}", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        limit=2**26,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
