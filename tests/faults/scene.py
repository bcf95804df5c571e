"""A worker at work between a broker and a database, and the ledger of what it gets."""

import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.ledger import Ledger, ledger_of
from tests.faults.workers import Worker
from tests.support.brokering import connect
from worker.amqp.topology import Topology


class Scene(NamedTuple):
    """A worker that is ready, and its ledger."""

    worker: Worker
    ledger: Ledger


OF_ASYNCIO = '"logger": "asyncio"'
"""In a log line about a fault of our own."""

NewScene = Callable[..., Awaitable[Scene]]
"""Makes a scene by the URLs of the broker and the database, and more settings of the worker.

Settings named `amqp_url` and `database_url` lead the worker another way to both, such as through a proxy; one
that is None is not set.
"""


@asynccontextmanager
async def scene(
    folder: Path, amqp_url: str, database_url: str, settings: Mapping[str, object]
) -> AsyncIterator[Scene]:
    """A scene of its own names; at its end, both servers must answer."""
    topology = Topology(f"fault-{secrets.token_hex(8)}", int(str(settings.get("partitions", 1))))
    ways = {"amqp_url": amqp_url, "database_url": database_url, "topology_prefix": topology.prefix}
    given = {name: value for name, value in {**ways, **settings}.items() if value is not None}
    async with ledger_of(amqp_url, topology, database_url) as ledger:
        worker = Worker(folder / topology.prefix, given)
        try:
            worker.start()
            await worker.is_ready()
            yield Scene(worker, ledger)
            assert OF_ASYNCIO not in worker.log, "asyncio logged an error"
        finally:
            worker.kill()
            sys.stdout.write(f"what the worker said:\n{worker.log[-5000:]}\n")  # shown if the test fails
            async with await connect(amqp_url) as connection:
                await topology.delete(connection)
