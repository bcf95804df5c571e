"""Somebody who listens to changes: says at SIGTERM how long each was on its way.

`python -m tests.benchmarks.consumers.listener AMQP_URL EXCHANGE`
"""

import asyncio
import gc
import json
import signal
import sys
import time
from datetime import datetime

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage


async def main(amqp_url: str, exchange: str) -> None:
    """Receive until SIGTERM; `ready` is printed once it does."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    found: list[tuple[float, float]] = []
    """When each was received, and the seconds that it took."""

    async def receive(message: AbstractIncomingMessage) -> None:
        now = time.time()
        at = datetime.fromisoformat(str(message.headers["cloudEvents:time"]))
        found.append((now, now - at.timestamp()))

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("", exclusive=True)
        await queue.bind(await channel.get_exchange(exchange, ensure=False), "#")
        gc.freeze()
        await queue.consume(receive, no_ack=True)
        print("ready", flush=True)  # noqa: T201
        await stop.wait()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
