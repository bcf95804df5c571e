"""Runs a consumer over a backlog, and says how many reports a second it settled.

For all alike: the backlog is in the queue before the process starts; the clock runs from the moment at which the
broker counts the process in as a consumer, so that starting is not measured, until everything is settled. The
others tell that moment; deviceops is asked for its metrics, some ten times in all, and those say when it settled
the last batch.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.benchmarks import processors
from tests.benchmarks.checking import check_database, check_tally
from tests.benchmarks.stage import Scene, Stage
from tests.benchmarks.traffic import Traffic
from tests.support.command import Deviceops
from tests.support.services.machine import free_port

ROOT = Path(__file__).parents[2]
FINEST, COARSEST = 0.01, 0.5
"""Seconds between two questions to deviceops, at least and at most."""
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'alembic_version'::regclass AND NOT granted"
PATIENCE = 900
"""Seconds that a consumer may take in all."""


@dataclass
class Workers:
    """Processes of `deviceops run` on one scene, as users start them."""

    scene: Scene
    client: httpx.AsyncClient
    count: int = 1
    wrapper: tuple[str, ...] = ()
    """A command that is to run each of them, such as a profiler."""
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """More settings of theirs."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    async def start(self) -> None:
        """Start them. Several begin at once: until all are there, each waits for its look at the schema."""
        if self.count == 1:
            self._start()
            return
        connection = await asyncpg.connect(self.scene.postgresql_url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE alembic_version")
                self._start()
                deadline = time.monotonic() + PATIENCE
                while await connection.fetchval(WAITING) < self.count:
                    assert time.monotonic() < deadline, f"there are no {self.count} workers"
                    await asyncio.sleep(FINEST)
        finally:
            await connection.close()

    def _start(self) -> None:
        for _ in range(self.count):
            self.ports.append(free_port())
            settings = {**self.scene.settings, **self.settings, "probe_port": str(self.ports[-1])}
            deviceops = Deviceops(self.scene.directory, settings, wrapper=self.wrapper)
            self.processes.append(deviceops.start("run", "--json", *self.arguments))

    async def metrics(self, name: str) -> Sequence[float]:
        """What they show Prometheus under a name, each."""
        urls = [f"http://127.0.0.1:{port}/metrics" for port in self.ports]
        answers = await asyncio.gather(*map(self.client.get, urls))
        lines = (line for answer in answers for line in answer.text.splitlines() if line.startswith(f"{name} "))
        return [float(line.split()[1]) for line in lines]

    async def processor_seconds(self) -> Mapping[str, float]:
        """What they have taken so far, and what broker and database have."""
        return {"workers": sum(await self.metrics("process_cpu_seconds_total")), **processors.taken()}

    async def received(self) -> int:
        """How many reports they say they have settled."""
        return int(sum(await self.metrics("deviceops_received_total")))

    async def have_received(self, number: float) -> int:
        """Wait until at least `number` reports are settled; gives how many are."""
        while (settled := await self.received()) < number:  # noqa: ASYNC110  # it is asked for
            await asyncio.sleep(COARSEST / 5)
        return settled

    async def have_settled(self, total: int, began: float) -> float:
        """Return once so much is settled: the moment at which it was, by the monotonic clock."""
        while (settled := await self.received()) < total:
            assert time.monotonic() < began + PATIENCE, f"{settled:,} of {total:,} are settled"
            assert all(process.poll() is None for process in self.processes), "a worker ended"
            elapsed = time.monotonic() - began
            rest = elapsed / settled * (total - settled) if settled else COARSEST
            await asyncio.sleep(min(max(rest / 2, FINEST), COARSEST))
        ago = time.time() - max(await self.metrics("deviceops_last_batch_timestamp_seconds"))
        return time.monotonic() - ago

    async def stop(self) -> list[dict[str, Any]]:
        """Have them end in order, and give what each says it has done."""
        for process in self.processes:
            process.terminate()
        return [json.loads(out) for out in await self.have_ended()]

    async def have_ended(self) -> list[str]:
        """Return once all have ended, with what each says."""
        said = []
        for process in self.processes:
            out, err = await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0, err
            said.append(out)
        self.processes.clear()
        return said

    def kill(self) -> None:
        """End those that still run."""
        for process in self.processes:
            process.kill()
            process.communicate()


@asynccontextmanager
async def running(
    scene: Scene,
    count: int = 1,
    wrapper: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Workers]:
    """Workers that were started, and that end with the block, whatever happens."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        workers = Workers(scene, client, count, wrapper, arguments, settings or {})
        try:
            await workers.start()
            yield workers
        finally:
            workers.kill()


async def rate_of_deviceops(
    stage: Stage,
    traffic: Traffic,
    *,
    kind: str = "postgresql",
    workers: int = 1,
    database_url: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> float:
    """Reports a second of deviceops; whatever it stored is checked, on a database of its own."""
    async with stage.scene(kind, database_url) as scene:
        await stage.broker.fill(scene.topology, traffic.messages)
        async with running(scene, workers, settings=settings) as running_ones:
            began = await stage.broker.consumed_by(scene.topology, workers)
            ended = await running_ones.have_settled(traffic.expected.received, began)
            tallies = await running_ones.stop()
        check_tally(tallies, traffic.expected)
        if database_url is None:
            await check_database(scene.database_url, traffic.expected)
    return traffic.expected.received / _taken(began, ended)


async def rate_of_bare(stage: Stage, traffic: Traffic, prefetch: int) -> float:
    """Messages a second of the consumer that only acknowledges."""
    async with stage.scene("sqlite") as scene:
        return await _rate_of_other(stage, scene, traffic, "bare", str(prefetch))


async def rate_of_usual(stage: Stage, traffic: Traffic, concurrency: int) -> float:
    """Reports a second of the consumer people write; what it stored is checked."""
    async with stage.scene() as scene:
        rate = await _rate_of_other(stage, scene, traffic, "usual", str(concurrency), scene.database_url)
        await check_database(scene.database_url, traffic.expected, groups_by_cause=False)
        return rate


async def _rate_of_other(stage: Stage, scene: Scene, traffic: Traffic, name: str, *arguments: str) -> float:
    count = len(traffic.messages)
    await stage.broker.fill(scene.topology, traffic.messages)
    async with other(scene, name, count, *arguments) as process:
        began = await stage.broker.consumed_by(scene.topology, 1)
        document = await told(process)
    assert document["received"] == count
    return count / _taken(began, float(document["ended"]))


def _taken(began: float, ended: float) -> float:
    """Seconds: a few reports may be settled before it is seen that anybody consumes."""
    return max(ended - began, FINEST)


@asynccontextmanager
async def other(scene: Scene, name: str, count: int, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One of the other consumers, which ends with the block, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.benchmarks.consumers.{name}"),
        *(scene.amqp_url, scene.topology.reports, str(count), *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def told(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What it tells at its end."""
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, f"the consumer ended with {process.returncode}"
    document: dict[str, Any] = json.loads(out)
    return document
