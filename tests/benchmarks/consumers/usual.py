"""The consumer people write: FastStream and SQLAlchemy on asyncpg, one transaction a message, uvloop.

`python -m tests.benchmarks.consumers.usual AMQP_URL QUEUE COUNT CONCURRENCY DATABASE_URL`

A message is acknowledged once its transaction has committed. As many are processed at a time as the channel has on
its way, each on a connection of its own.
"""

import asyncio
import gc
import json
import logging
import sys
import time
from datetime import UTC, datetime

import uvloop
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage
from sqlalchemy.ext.asyncio import create_async_engine

from tests.benchmarks.consumers.handling import take_announcement, take_report
from worker.model.messages import ANNOUNCEMENT, Message, Origin


async def main(amqp_url: str, queue_name: str, count: int, concurrency: int, database_url: str) -> None:
    """Process so many messages."""
    engine = create_async_engine(database_url, pool_size=concurrency, max_overflow=0)
    broker = RabbitBroker(amqp_url, logger=None, log_level=logging.ERROR)
    received = 0
    done = asyncio.Event()

    async def handle(body: bytes, delivery: RabbitMessage) -> None:
        nonlocal received
        raw = delivery.raw_message
        origin = Origin(raw.exchange or "", raw.routing_key or "")
        message = Message(body, datetime.now(UTC), raw.message_id, raw.type, raw.timestamp, lambda: origin)
        async with engine.begin() as connection:
            take = take_announcement if message.type == ANNOUNCEMENT else take_report
            await take(connection, message)
        received += 1
        if received == count:
            done.set()

    broker.subscriber(
        RabbitQueue(queue_name, declare=False),
        channel=Channel(prefetch_count=concurrency, publisher_confirms=False),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=_as_bytes,
        no_reply=True,
    )(handle)
    gc.freeze()
    async with broker:
        await broker.start()
        await done.wait()
        ended = time.monotonic()
    await engine.dispose()
    print(json.dumps({"received": received, "ended": ended}))  # noqa: T201


async def _as_bytes(delivery: RabbitMessage) -> bytes:
    """The body as it came: the contract reads it."""
    return delivery.body


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
