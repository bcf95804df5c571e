"""What the broker has confirmed, held against what the database has."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import aio_pika
import asyncpg
from aio_pika.abc import AbstractConnection, AbstractExchange
from sqlalchemy import bindparam, func, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from tests.faults.fleet import Fleet
from tests.support.brokering import connect
from tests.support.rules import counters_of
from worker.amqp.topology import Topology
from worker.model.outcomes import Status
from worker.store.database import Database
from worker.store.tables import activity, dead_letters, device_operations, operations

PATIENCE = float(os.environ.get("FAULT_PATIENCE", "120"))
"""Seconds that anything may take once the fault is lifted: far more than it should."""
AT_ONCE = 20
"""Reports on their way to the broker at a time."""


_HISTORY = (
    select(activity.c.report_id)
    .join_from(activity, device_operations, device_operations.c.id == activity.c.device_operation_id)
    .where(device_operations.c.operation_id == bindparam("id"))
)
_OPERATION = select(operations).where(operations.c.id == bindparam("id"))
_DEAD_LETTERS = select(func.count()).where(
    dead_letters.c.operation_id == bindparam("id"), dead_letters.c.status == Status.OPEN
)


@dataclass(frozen=True)
class Comparison:
    """What is wrong with the database, if anything, after all reports of a fleet were confirmed."""

    missing: int
    """Reports of which the database has no trace."""
    doubled: int
    """By how much counters are beyond what the reports amount to, and histories too long."""
    wrong: str
    """What else differs."""


class Ledger:
    """Publishes fleets, however often it takes until the broker confirms, and compares."""

    def __init__(self, amqp_url: str, topology: Topology, database: Database) -> None:
        self._amqp_url = amqp_url
        self._topology = topology
        self._database = database
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()
        self._gate = asyncio.Lock()
        self._confirmed_ids: set[str] = set()
        self.copies = 1
        """How often each report is published."""
        self._fleets: list[Fleet] = []

    async def publish(self, fleet: Fleet, seconds: float = 0, *, is_to_arrive: bool = True) -> None:
        """Publish all of a fleet's reports, over so many seconds, and return once each is confirmed."""
        if is_to_arrive:
            self._fleets.append(fleet)
        reports = list(fleet.reports.items()) * self.copies
        fleet.random.shuffle(reports)
        self._confirmed_ids = set()
        for start in range(0, len(reports), AT_ONCE):
            async with self._gate:
                await asyncio.gather(*(self._confirmed(*report) for report in reports[start : start + AT_ONCE]))
            await asyncio.sleep(seconds * AT_ONCE / len(reports))

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """Publish nothing for the length of a block, which begins once what was published is in the database."""
        async with self._gate:
            await self.arrived()
            yield

    async def arrived(self) -> None:
        """Return once the database has what is confirmed by now, be it parked."""
        confirmed = set(self._confirmed_ids)
        deadline = time.monotonic() + PATIENCE
        while not await self._has(confirmed):
            assert time.monotonic() < deadline, "what was published does not arrive"
            await asyncio.sleep(0.05)

    async def caught_up(self) -> None:
        """Return once the database has all reports of all fleets so far, but for those that are not to arrive."""
        deadline = time.monotonic() + PATIENCE
        while self._fleets:
            fleet = self._fleets[0]
            if (found := await self._number(fleet.operation)) >= len(fleet.reports):
                self._fleets.pop(0)
                continue
            assert time.monotonic() < deadline, f"{found} of {len(fleet.reports)} reports are in the database"
            await asyncio.sleep(0.05)

    async def compare(self, fleet: Fleet) -> Comparison:
        """Hold a fleet's reports, all of them confirmed, against the database."""
        async with self._database.read() as connection:
            found = Counter((await connection.execute(_HISTORY, {"id": fleet.operation})).scalars())
            row = (await connection.execute(_OPERATION, {"id": fleet.operation})).one_or_none()
            letters = (await connection.execute(_DEAD_LETTERS, {"id": fleet.operation})).scalar_one()
        counters = {name: getattr(row, name, 0) for name in counters_of([])}
        expected = fleet.counters
        wrong = []
        if letters:
            wrong.append(f"{letters} dead letters")
        if counters != expected:
            wrong.append(f"counters {counters}, expected {expected}")
        if row is not None and row.state != fleet.state:
            wrong.append(f"state {row.state}, expected {fleet.state}")
        return Comparison(
            missing=len(fleet.reports.keys() - found.keys()),
            doubled=sum(number - 1 for number in found.values())
            + sum(max(0, counters[name] - number) for name, number in expected.items()),
            wrong="; ".join(wrong),
        )

    async def messages_left(self) -> int:
        """Messages in the queues; to be asked once no worker holds any."""
        async with await connect(self._amqp_url) as connection:
            return sum((await self._topology.waiting(connection)).values())

    async def waiting(self) -> tuple[int, int]:
        """Reports that the broker has and has not delivered, and how many workers consume."""
        async with await connect(self._amqp_url) as connection:
            found = await self._topology.look(connection, self._topology.reports)
        assert found is not None
        return found.message_count or 0, found.consumer_count or 0

    async def close(self) -> None:
        """Let the broker go."""
        await self._forget()

    async def _number(self, operation: UUID) -> int:
        with suppress(SQLAlchemyError, OSError, asyncpg.PostgresError):
            async with asyncio.timeout(5), self._database.read() as connection:
                return len((await connection.execute(_HISTORY, {"id": operation})).all())
        return 0

    async def _has(self, ids: set[str]) -> bool:
        """Whether the database has these reports, parked ones too."""
        async with self._database.read() as connection:
            found = set((await connection.execute(select(activity.c.report_id))).scalars())
            found |= set((await connection.execute(select(dead_letters.c.report_id))).scalars())
        return ids <= found

    async def _confirmed(self, id_: str, body: bytes) -> None:
        """Publish until the broker confirms: what it did not confirm may have arrived, and is a duplicate then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(Exception):  # whatever the client makes of it: it is not confirmed
                exchange = await self._connected()
                message = aio_pika.Message(body, message_id=id_, delivery_mode=2)
                await exchange.publish(message, id_, timeout=5)  # so that reports come to all partitions
                self._confirmed_ids.add(id_)
                return
            assert time.monotonic() < deadline, "the broker does not confirm"
            await self._forget()
            await asyncio.sleep(0.1)

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            if self._exchange is None or self._connection is None or self._connection.is_closed:
                self._connection = await connect(self._amqp_url, seconds=5)
                async with asyncio.timeout(5):
                    channel = await self._connection.channel(on_return_raises=True)
                    self._exchange = await self._topology.declare(channel)
            return self._exchange

    async def _forget(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                async with asyncio.timeout(2):
                    await connection.close()


@asynccontextmanager
async def ledger_of(amqp_url: str, topology: Topology, database_url: str) -> AsyncIterator[Ledger]:
    """A ledger with connections of its own."""
    database = Database(make_url(database_url))
    ledger = Ledger(amqp_url, topology, database)
    try:
        yield ledger
    finally:
        await ledger.close()
        await database.close()
