"""Operations whose devices may fall silent, on the broker and in the database."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractExchange
from sqlalchemy import func, make_url, select

from statemachine import State
from tests.faults.ledger import PATIENCE
from tests.faults.workers import Worker
from tests.support.brokering import connect
from tests.support.elapsing import elapse
from tests.support.sending import ANNOUNCEMENT, announcement_body, report_body
from worker.model.timing import SERVICE
from worker.store.database import Database
from worker.store.recount import find_drift
from worker.store.tables import activity, device_operations, operations

AT_ONCE = 1_000
"""Messages on their way to the broker at a time."""
FEW_DEVICES = 1_000
"""Of one announcement."""


@dataclass
class Silence:
    """Publishes, lets time pass, and says who was timed out."""

    exchange: AbstractExchange
    database: Database
    random: Random = field(default_factory=lambda: Random(7))  # noqa: S311

    def new_id(self) -> UUID:
        """An id for an operation or a device."""
        return UUID(int=self.random.getrandbits(128), version=4)

    async def announce(self, devices: int, **more: object) -> dict[UUID, list[UUID]]:
        """Announce a number of devices, in as few operations as it takes, and return once they are registered."""
        announced: dict[UUID, list[UUID]] = {}
        while devices > 0:
            number = min(devices, FEW_DEVICES)
            announced[self.new_id()] = [self.new_id() for _ in range(number)]
            devices -= number
        for operation, targets in announced.items():
            await self.announce_again(operation, targets, **more)
        for operation, targets in announced.items():
            await self.has(operation, len(targets))
        return announced

    async def announce_again(self, operation: UUID, targets: Collection[UUID] = (), **more: object) -> None:
        """Announce an operation, and do not wait."""
        await self.publish([announcement_body(operation, targets, **more)], ANNOUNCEMENT)

    async def report(self, operation: UUID, devices: Iterable[UUID], state: str, **more: object) -> None:
        """Have devices report, once each, and do not wait."""
        await self.publish([report_body(operation, device, state, **more) for device in devices])

    async def publish(self, bodies: Sequence[object], kind: str | None = None) -> None:
        """Publish messages to all partitions, and return once the broker has confirmed them."""
        for start in range(0, len(bodies), AT_ONCE):
            messages = [
                aio_pika.Message(
                    json.dumps(body).encode(), type=kind, message_id=str(self.new_id()), delivery_mode=2
                )
                for body in bodies[start : start + AT_ONCE]
            ]
            await asyncio.gather(*(self.exchange.publish(each, str(each.message_id)) for each in messages))

    async def pass_time(self, seconds: int) -> None:
        """Let time pass, also for what workers have said: only while none is at work."""
        await elapse(self.database, seconds)

    async def timed_out(self, operation: UUID) -> list[UUID]:
        """The devices of which there was ever a TIMEOUT, as often as there was one."""
        query = (
            select(device_operations.c.device_id)
            .join(activity, activity.c.device_operation_id == device_operations.c.id)
            .where(device_operations.c.operation_id == operation, activity.c.state == State.TIMEOUT)
        )
        async with self.database.read() as connection:
            return [*(await connection.execute(query)).scalars()]

    async def count(self, operation: UUID, *states: State) -> int:
        """How many devices are in one of these states; without any, how many are registered."""
        query = select(func.count()).where(device_operations.c.operation_id == operation)
        if states:
            query = query.where(device_operations.c.state.in_(states))
        async with self.database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def tripped(self, operation: UUID) -> tuple[str | None, str | None]:
        """With which numbers its threshold was crossed, and the reason of the operation."""
        query = select(operations.c.tripped, operations.c.reason).where(operations.c.id == operation)
        async with self.database.read() as connection:
            row = (await connection.execute(query)).one()
        return row.tripped, row.reason

    async def acted(self, operation: UUID) -> list[tuple[UUID, str]]:
        """Every report of the worker's own: the device operation, and the id of the report."""
        query = (
            select(activity.c.device_operation_id, activity.c.report_id)
            .join(device_operations, activity.c.device_operation_id == device_operations.c.id)
            .where(device_operations.c.operation_id == operation, activity.c.service_id == SERVICE)
        )
        async with self.database.read() as connection:
            return [(row[0], row[1]) for row in await connection.execute(query)]

    async def has(self, operation: UUID, number: int, *states: State) -> None:
        """Return once this number of devices is in one of the states; without states, is registered."""
        deadline = time.monotonic() + PATIENCE
        while (found := await self.count(operation, *states)) != number:
            assert time.monotonic() < deadline, f"{found} of {number} are {states}"
            await asyncio.sleep(0.1)

    async def is_counted(self) -> None:
        """Check that all counters equal a recount."""
        _, drifted = await find_drift(self.database)
        assert not drifted


@asynccontextmanager
async def silence(amqp_url: str, database_url: str, worker: Worker) -> AsyncIterator[Silence]:
    """With connections of its own."""
    database = Database(make_url(database_url))
    try:
        async with await connect(amqp_url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(str(worker.settings["topology_prefix"]))
            yield Silence(exchange, database)
    finally:
        await database.close()


NewSilence = Callable[[str, str, Worker], Awaitable[Silence]]
"""Makes one on a broker and a database, both by URL, with a worker that is told to pass time."""
