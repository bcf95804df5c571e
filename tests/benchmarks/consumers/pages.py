"""People who have the list of operations open: they take what is sent, and say at SIGTERM how much it was.

`python -m tests.benchmarks.consumers.pages URL TOKEN COUNT`.
"""

import asyncio
import json
import signal
import sys
from urllib.parse import urlencode

import httpx
import uvloop

from tests.support.browsing.visitors import Visitors

STREAM = "/events?" + urlencode({"topic": "operations", "part": "operations operations /operations/rows"})
"""What a browser asks for on that page."""
POLL = 0.05
"""Seconds between two looks whether all are open."""


async def main(url: str, token: str, count: int) -> None:
    """Have pages open until SIGTERM; `ready` is printed once all have received their part."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        headers = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
        signed_in = await client.post("/sign-in", data={"token": token, "next": "/"}, headers=headers)
        assert signed_in.is_redirect, signed_in.text
        cookies = dict(client.cookies)
    visitors = Visitors(f"{url}{STREAM}", cookies, count)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, visitors.end)
    running = asyncio.create_task(visitors.run())
    while visitors.open < count:
        assert not running.done(), "a page was cut off"
        await asyncio.sleep(POLL)
    before = visitors.received
    print("ready", flush=True)  # noqa: T201
    await running
    print(json.dumps(visitors.received - before))  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
