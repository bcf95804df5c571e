"""The shape of the cost: full processing stands within a factor of two of receiving alone, in the same run."""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence

import aio_pika
import pytest
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from prometheus_client import CollectorRegistry

from worker import jsonl
from worker.amqp.consumer import Consumer
from worker.amqp.publisher import Destination, publish
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages
from worker.simulate import Disorder, simulate
from worker.store.database import Database
from worker.watch.batch_metrics import BatchMetrics

ROUNDS = 5
DEVICES = 4_000
PREFETCH = 1_000


async def seconds_to_receive(amqp_url: str, queue_name: str, count: int) -> float:
    """How long a bare aio-pika consumer, which only acknowledges, takes for `count` messages."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(queue_name)
        done = asyncio.Event()
        received = 0

        async def receive(message: AbstractIncomingMessage) -> None:
            nonlocal received
            received += 1
            if received % (PREFETCH // 2) == 0 or received == count:
                await message.ack(multiple=True)
            if received == count:
                done.set()

        started = time.perf_counter()
        await queue.consume(receive)
        await done.wait()
        return time.perf_counter() - started


async def seconds_to_process(settings: Settings, database: Database, count: int) -> float:
    """How long a worker takes to consume, process, commit, measure and acknowledge `count` messages."""
    stop = asyncio.Event()
    meter = BatchMetrics(CollectorRegistry())
    database.on_commit = meter.on_commit

    async def process(messages: Sequence[Message]) -> None:
        tally = Tally()
        with meter.measuring(messages, tally):
            tally.add(await process_messages(database, messages))
        if meter.tally.received == count:
            stop.set()

    started = time.perf_counter()
    await Consumer(settings, process, stop).run()
    return time.perf_counter() - started


async def rounds(settings: Settings) -> list[float]:
    """For each round, how many times as long receiving and processing takes as receiving alone."""
    topology = Topology(settings.topology_prefix)
    amqp_url = settings.amqp_url.get_secret_value()
    database = Database(settings.sqlalchemy_url)
    factors = []
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await topology.declare(channel)
        bare = await channel.declare_queue(
            f"{topology.prefix}.bare", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await bare.bind(exchange, "#")
        for seed in range(ROUNDS):
            spoilt = Disorder(disorder=0.1, duplicates=0.02, conflicts=0.01, malformed=0.002)
            messages = [jsonl.as_message(line.encode()) for line in simulate(4, DEVICES // 4, seed, spoilt)]
            await publish(Destination(exchange, None), messages)
            receiving = await seconds_to_receive(amqp_url, bare.name, len(messages))
            processing = await seconds_to_process(settings, database, len(messages))
            print(f"{len(messages) / receiving:,.0f}/s received, {len(messages) / processing:,.0f}/s processed")  # noqa: T201
            factors.append(processing / receiving)
        await channel.queue_delete(bare.name)
    await database.close()
    return factors


@pytest.mark.timeout(600)
@pytest.mark.alone
def test_processing_stands_within_a_factor_of_two_of_receiving_alone(
    new_postgresql_database: Callable[[], str], amqp_url: str, topology_prefix: str
) -> None:
    gc.collect()
    gc.freeze()  # a worker's memory has no pytest in it, which the collector would look at with every batch
    settings = Settings(database_url=new_postgresql_database(), amqp_url=amqp_url, topology_prefix=topology_prefix)
    factors = uvloop.run(rounds(settings))  # the loop that the command uses, for both
    assert statistics.median(factors) <= 2, factors
