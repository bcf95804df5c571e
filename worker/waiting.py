"""Waiting for the first of several things, and for an end."""

import asyncio
from collections.abc import Awaitable


async def first_of(*waits: Awaitable[object]) -> None:
    """Wait until the first of several ends, then cancel the others. Raises the error of the first."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def a_while_after(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` has been set for so many seconds."""
    await event.wait()
    await asyncio.sleep(seconds)
