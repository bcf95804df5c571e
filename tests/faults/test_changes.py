"""Whatever dies, every change that was committed is told, in order, and none that was not."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random

import pytest

from tests.faults.listener import Listener, listening
from tests.faults.outages import is_paused
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker, killed
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ

NewListener = Callable[[str, str, Worker], Awaitable[Listener]]


@pytest.fixture
async def new_listener() -> AsyncIterator[NewListener]:
    async with AsyncExitStack() as stack:

        async def make(amqp_url: str, database_url: str, worker: Worker) -> Listener:
            return await stack.enter_async_context(listening(amqp_url, database_url, worker))

        yield make


async def test_workers_are_killed(
    trials: Trials, new_scene: NewScene, new_listener: NewListener, amqp_url: str, database_url: str
) -> None:
    worker, ledger = await new_scene(amqp_url, database_url, changes="all", batch_size=20)
    workers = [worker, worker.twin(), worker.twin()]
    for twin in workers[1:]:
        twin.start()
        await twin.is_ready()
    listener = await new_listener(amqp_url, database_url, worker)

    async def kill(random: Random) -> None:
        await killed(workers, random, 4, passes=10)

    await trials.endure(
        "changes told: three workers killed",
        kill,
        ledger,
        *workers,
        seconds=4,
        devices=200,
        at_rest=listener.agrees,
    )


async def test_the_broker_is_killed_and_started_again(
    trials: Trials, new_scene: NewScene, new_listener: NewListener, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(broker.url, sturdy_database, changes="all", batch_size=20)
    listener = await new_listener(broker.url, sturdy_database, worker)
    await asyncio.sleep(2)  # see PrivateRabbitMQ.kill()

    async def kill(random: Random) -> None:
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(random.uniform(0, 1))
        await asyncio.to_thread(broker.start)

    await trials.endure("changes told: broker killed", kill, ledger, worker, devices=200, at_rest=listener.agrees)


async def test_the_database_is_killed_and_started_again(
    trials: Trials,
    new_scene: NewScene,
    new_listener: NewListener,
    amqp_url: str,
    fragile_database: str,
    postgresql: PrivatePostgreSQL,
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, changes="all", batch_size=20)
    twin = worker.twin()
    twin.start()
    await twin.is_ready()
    listener = await new_listener(amqp_url, fragile_database, worker)

    async def kill(random: Random) -> None:
        await asyncio.to_thread(postgresql.kill)
        await is_paused(worker, ledger, random)
        await asyncio.to_thread(postgresql.start)

    await trials.endure(
        "changes told: PostgreSQL killed", kill, ledger, worker, twin, devices=200, at_rest=listener.agrees
    )


async def test_the_worker_that_publishes_is_frozen(
    trials: Trials, new_scene: NewScene, new_listener: NewListener, amqp_url: str, sturdy_database: str
) -> None:
    """Another one goes on; what the frozen one still publishes when it wakes has come before."""
    worker, ledger = await new_scene(amqp_url, sturdy_database, changes="all", batch_size=20)
    workers = [worker, worker.twin()]
    workers[1].start()
    await workers[1].is_ready()
    listener = await new_listener(amqp_url, sturdy_database, worker)

    async def freeze(random: Random) -> None:
        frozen = random.choice(workers)
        frozen.signal(signal.SIGSTOP)
        await asyncio.sleep(7)
        frozen.signal(signal.SIGCONT)

    await trials.endure(
        "changes told: a worker frozen",
        freeze,
        ledger,
        *workers,
        seconds=3,
        devices=200,
        at_rest=listener.agrees,
    )
