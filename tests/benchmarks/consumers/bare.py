"""A consumer that only acknowledges: aio-pika as its users have it, on uvloop.

`python -m tests.benchmarks.consumers.bare AMQP_URL QUEUE COUNT PREFETCH`
"""

import asyncio
import gc
import json
import sys
import time

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage


async def main(amqp_url: str, queue_name: str, count: int, prefetch: int) -> None:
    """Receive so many messages, acknowledged by half a prefetch, or when the queue runs dry."""
    received = 0
    done = asyncio.Event()
    latencies: list[float] = []
    last: AbstractIncomingMessage | None = None

    async def receive(message: AbstractIncomingMessage) -> None:
        nonlocal received, last
        received += 1
        if sent := message.headers.get("sent"):
            latencies.append(time.monotonic() - float(str(sent)))
        last = message
        if received % (prefetch // 2) == 0 or received == count:
            last = None
            await message.ack(multiple=True)
        if received == count:
            done.set()

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.get_queue(queue_name)
        gc.freeze()
        await queue.consume(receive)
        while not done.is_set():
            try:
                await asyncio.wait_for(done.wait(), 0.1)
            except TimeoutError:
                if last is not None:  # nobody may have to wait for half a prefetch that does not come
                    dry, last = last, None
                    await dry.ack(multiple=True)
        ended = time.monotonic()
    print(json.dumps({"received": received, "ended": ended, "latencies": latencies}))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
