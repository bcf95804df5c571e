"""A worker that lives long through many small faults stays as small as it was."""

import statistics
import sys
import time
from random import Random

import asyncpg
import pytest
import yarl

from tests.faults.fleet import Fleet
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.databases import NewDatabase
from tests.support.proxy import proxy_to

MEGABYTE = 1_000_000
GROWTH = 10 * MEGABYTE
"""How much more memory the worker may have in the last third of its life than in the one before."""
COUNTS = ("deviceops_tasks", "process_open_fds")
PUBLISHED = "deviceops_changes_published_total"


@pytest.mark.long
@pytest.mark.timeout(2 * 3_600)
async def test_memory_tasks_and_files_stay_flat(
    soak_seconds: int,
    trials: Trials,
    new_scene: NewScene,
    amqp_url: str,
    new_postgresql_database: NewDatabase,
) -> None:
    """A fault in each fleet, never a fatal one."""
    url, broker = new_postgresql_database(), yarl.URL(amqp_url)
    memory: list[float] = []
    async with proxy_to(str(broker.host), broker.port or 5672) as proxy:
        way = str(broker.with_host("127.0.0.1").with_port(proxy.port))
        worker, ledger = await new_scene(amqp_url, url, amqp_url=way, batch_size=100)

        await ledger.publish(Fleet(Random(trials.seed), 100), 1)  # noqa: S311
        await ledger.caught_up()
        await worker.until(lambda: worker.metrics()[PUBLISHED], "publishing: it has each connection that it keeps")
        began = worker.metrics()

        def has_no_more() -> bool:
            now = worker.metrics()
            return all(now[name] <= began[name] + 1 for name in COUNTS)

        async def hurt(random: Random) -> None:
            if random.random() < 0.5:
                proxy.cut()
            else:
                await terminate_backends(url)
            await worker.is_ready()

        async def measure() -> None:
            # A connection that is being made adds some for a moment.
            await worker.until(has_no_more, f"back at the tasks and files that it began with: {began}")
            memory.append(worker.metrics()["process_resident_memory_bytes"])

        trials.tries, trials.until = sys.maxsize, time.monotonic() + soak_seconds
        await trials.endure(
            "soak: connections cut, backends terminated", hurt, ledger, worker, devices=100, at_rest=measure
        )
    assert worker.deaths == [0]
    third = len(memory) // 3
    before, after = (statistics.median(values) for values in (memory[third:-third], memory[-third:]))
    print(f"memory: {before / MEGABYTE:.0f} MB in the middle third, {after / MEGABYTE:.0f} MB in the last")  # noqa: T201
    assert after - before < GROWTH


async def terminate_backends(database_url: str) -> None:
    """End every connection of the worker to its database."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'deviceops' AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
