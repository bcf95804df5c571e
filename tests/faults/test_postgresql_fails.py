"""A PostgreSQL that is away or frozen holds a worker up, which lives on, and loses and doubles nothing."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from random import Random

import httpx
import pytest

from tests.faults.outages import assert_clean, assert_told_once, is_paused, said
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.services import PrivatePostgreSQL

PROMPTLY = 2
"""Seconds within which a probe is answered whatever the database does."""
DRAIN = 2
"""Seconds that a worker gets to finish."""
A_FEW = 6
"""Seconds beyond these in which it must have left, on a machine that has other work too."""


@pytest.mark.parametrize(
    ("fault", "how"),
    [("PostgreSQL restarted in order", PrivatePostgreSQL.stop), ("PostgreSQL killed", PrivatePostgreSQL.kill)],
)
async def test_away_for_a_while(
    trials: Trials,
    new_scene: NewScene,
    amqp_url: str,
    fragile_database: str,
    postgresql: PrivatePostgreSQL,
    fault: str,
    how: Callable[[PrivatePostgreSQL], None],
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=50)

    async def restart(random: Random) -> None:
        await asyncio.to_thread(how, postgresql)
        await is_paused(worker, ledger, random)
        await asyncio.to_thread(postgresql.start)

    await trials.endure(fault, restart, ledger, worker)
    assert_told_once(worker.log, trials.tries)


async def test_away_already_when_the_worker_starts(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str, postgresql: PrivatePostgreSQL
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=50)

    async def start_without(_: Random) -> None:
        lives = len(worker.deaths)
        worker.signal(signal.SIGSTOP)  # lest this life tells of the outage as well
        await asyncio.to_thread(postgresql.stop)
        before = len(worker.log)
        worker.signal(signal.SIGKILL)
        await worker.has_died(lives + 1)
        await worker.until(lambda: "reasons" in worker.probe("readyz")[1], "answering")
        await worker.until(lambda: "database" in json.loads(worker.probe("readyz")[1])["reasons"], "waiting")
        status, text = worker.probe("readyz")
        assert status == httpx.codes.SERVICE_UNAVAILABLE
        assert "refused" in json.loads(text)["reasons"]["database"].lower()
        assert worker.probe("livez")[0] == httpx.codes.OK
        await asyncio.to_thread(postgresql.start)
        await worker.is_ready()
        assert len(worker.deaths) == lives + 1
        assert_told_once(worker.log[before:])

    await trials.endure("PostgreSQL away when the worker starts", start_without, ledger, worker)


async def test_frozen_for_longer_than_the_timeout(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str, postgresql: PrivatePostgreSQL
) -> None:
    worker, ledger = await new_scene(
        amqp_url, fragile_database, batch_size=50, database_timeout=1, amqp_url=f"{amqp_url}?heartbeat=1"
    )

    async def freeze(random: Random) -> None:
        with postgresql.frozen():
            await is_paused(worker, ledger, random)
            frozen_for_long = time.monotonic() + 4  # RabbitMQ ends a connection without two heartbeats
            while time.monotonic() < frozen_for_long:
                asked = time.monotonic()
                assert (await asyncio.to_thread(worker.probe, "livez"))[0] == httpx.codes.OK
                assert (await asyncio.to_thread(worker.probe, "readyz"))[0] == httpx.codes.SERVICE_UNAVAILABLE
                assert time.monotonic() - asked < PROMPTLY
                await asyncio.sleep(0.1)

    await trials.endure("PostgreSQL frozen", freeze, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert not said(worker.log, "broker connection lost, reconnecting")


async def test_frozen_while_the_worker_is_to_stop(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str, postgresql: PrivatePostgreSQL
) -> None:
    worker, ledger = await new_scene(
        amqp_url, fragile_database, batch_size=50, database_timeout=1, drain_timeout=DRAIN
    )

    async def stop_it_frozen(random: Random) -> None:
        lives = len(worker.deaths)
        with postgresql.frozen():
            await is_paused(worker, ledger, random)
            told = time.monotonic()
            worker.signal(signal.SIGTERM)
            await worker.has_died(lives + 1)
            assert time.monotonic() - told < DRAIN + A_FEW
        assert worker.deaths[lives:] == [0]
        await worker.is_ready()

    await trials.endure("PostgreSQL frozen while the worker stops", stop_it_frozen, ledger, worker)
    assert_clean(worker.log)
