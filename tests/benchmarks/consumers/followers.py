"""Many who follow the events of operations over HTTP: they read what comes, and say at SIGTERM how much it was.

`python -m tests.benchmarks.consumers.followers HOST PORT TOKEN COUNT OPERATION…`: of each operation as many.
"""

import asyncio
import json
import signal
import sys
from itertools import cycle, islice

import uvloop

AT_ONCE = 50
"""Followers that connect at a time."""


async def main(host: str, port: int, token: str, count: int, operations: list[str]) -> None:
    """Follow until SIGTERM; `ready` is printed once all do."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    events = [0] * count
    connecting = asyncio.Semaphore(AT_ONCE)
    following: asyncio.Queue[None] = asyncio.Queue()

    async def follow(number: int, operation: str) -> None:
        async with connecting:
            reader, writer = await asyncio.open_connection(host, port)
            path = f"/v0/operations/{operation}/events"
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"event: operation\n")
        following.put_nowait(None)
        while data := await reader.read(65_536):
            events[number] += data.count(b"event: ")
        writer.close()

    tasks = [
        asyncio.create_task(follow(number, operation))
        for number, operation in enumerate(islice(cycle(operations), count))
    ]
    for _ in range(count):
        await following.get()
    print("ready", flush=True)  # noqa: T201
    await stop.wait()
    assert not any(task.done() for task in tasks), "a follower was cut off"
    print(json.dumps(sum(events)))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
