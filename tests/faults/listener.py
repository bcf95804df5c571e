"""Somebody who listens to changes, whatever becomes of the broker, and holds them against the database."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractIncomingMessage
from sqlalchemy import func, make_url, or_, select

from statemachine import Counters, State
from tests.faults.ledger import PATIENCE
from tests.faults.workers import Worker
from tests.support.brokering import connect
from worker.amqp.topology import Topology
from worker.model.changes import ChangeType
from worker.model.outcomes import Status
from worker.store.database import Database
from worker.store.tables import dead_letters, device_operations, operations


@dataclass
class Listener:
    """Receives what is published, and keeps it in the order in which it came first."""

    amqp_url: str
    topology: Topology
    database: Database
    received: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """Type and body, by the message's id."""
    copies: int = 0
    """Messages that came again."""
    is_bound: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def queue(self) -> str:
        """The name of a queue of its own."""
        return f"{self.topology.prefix}.listener"

    async def listen(self) -> None:
        """Receive until cancelled, over and over."""
        while True:
            with suppress(Exception):  # whatever the client makes of a broker that is away
                async with asyncio.timeout(10):
                    connection = await connect(self.amqp_url, seconds=5)
                try:
                    channel = await connection.channel()
                    exchange = await channel.declare_exchange(
                        self.topology.changes, ExchangeType.TOPIC, durable=True
                    )
                    queue = await channel.declare_queue(
                        self.queue, durable=True, arguments={"x-queue-type": "quorum"}
                    )
                    await queue.bind(exchange, "#")
                    await queue.consume(self._receive)
                    self.is_bound.set()
                    closing = asyncio.ensure_future(channel.closed())
                    await closing
                finally:
                    with suppress(Exception):
                        async with asyncio.timeout(2):
                            await connection.close()
            await asyncio.sleep(0.2)

    async def leave(self) -> None:
        """Delete the queue."""
        async with await connect(self.amqp_url) as connection, connection.channel() as channel:
            await channel.queue_delete(self.queue)

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        assert message.message_id is not None
        assert message.type is not None
        new = message.type, json.loads(message.body)
        known = self.received.setdefault(message.message_id, new)
        assert known == new, "a copy differs"
        self.copies += known is not new
        await message.ack()

    async def agrees(self) -> None:
        """Return once everything was received that is committed; fail if it is not what the database has."""
        deadline = time.monotonic() + PATIENCE
        while wrong := await self._difference():
            assert time.monotonic() < deadline, wrong
            await asyncio.sleep(0.1)

    async def _difference(self) -> str:
        """What the database has and was not received; fails for what it has not."""
        stored, devices, letters = await self._stored()
        sequences: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        last: dict[str, Any] = {}
        states: defaultdict[str, dict[str, str]] = defaultdict(dict)
        told_letters = 0
        for type_, body in list(self.received.values()):
            if type_ == ChangeType.DEAD_LETTERS_ADDED:
                told_letters += body["count"]
                continue
            operation = body["operation_id"]
            sequences[operation, type_].append(body["sequence"])
            if type_ == ChangeType.OPERATION_CHANGED:
                last[operation] = body
            for change in body.get("changes", ()):
                assert states[operation].get(change["device_id"]) == change["before"], "a step is missing"
                states[operation][change["device_id"]] = change["state"]
        for (operation, type_), found in sequences.items():
            assert found == list(range(1, len(found) + 1)), f"{type_} of {operation}: {found}"
        wrong = []
        for operation, (sequence, state, counters) in stored.items():
            for type_ in (ChangeType.OPERATION_CHANGED, ChangeType.DEVICE_OPERATIONS_CHANGED):
                number = len(sequences.get((operation, type_), ()))
                assert number <= sequence, "a change was told that was not committed"
                if number < sequence:
                    wrong.append(f"{operation}: {number} of {sequence} {type_}")
            if not wrong:
                assert (last[operation]["state"], last[operation]["counters"]) == (state, counters)
        assert sequences.keys() <= {(operation, type_) for operation in stored for type_ in ChangeType}
        assert told_letters <= letters
        if told_letters < letters:
            wrong.append(f"{told_letters} of {letters} dead letters")
        if not wrong:
            assert states == devices
        return "; ".join(wrong)

    async def _stored(self) -> tuple[dict[str, Any], dict[str, dict[str, str]], int]:
        column = device_operations.c
        async with self.database.read() as connection:
            rows = await connection.execute(select(operations))
            stored = {
                str(row.id): (row.sequence, row.state, {name: getattr(row, name) for name in Counters._fields})
                for row in rows
            }
            devices: defaultdict[str, dict[str, str]] = defaultdict(dict)
            for operation, device, state in await connection.execute(
                select(column.operation_id, column.device_id, column.state)
            ):
                devices[str(operation)][str(device)] = State(state).name
            # Those that a registration of the same transaction has taken up were never open.
            was_open = or_(dead_letters.c.status != Status.RESOLVED.value, dead_letters.c.attempts > 1)
            letters = (await connection.execute(select(func.count()).where(was_open))).scalar_one()
        return stored, devices, letters


@asynccontextmanager
async def listening(amqp_url: str, database_url: str, worker: Worker) -> AsyncIterator[Listener]:
    """A listener to what a worker of this prefix tells, for the length of a block."""
    database = Database(make_url(database_url))
    listener = Listener(amqp_url, Topology(str(worker.settings["topology_prefix"])), database)
    task = asyncio.create_task(listener.listen())
    try:
        async with asyncio.timeout(PATIENCE):
            await listener.is_bound.wait()
        yield listener
    finally:
        task.cancel()
        await asyncio.wait([task])
        await listener.leave()
        await database.close()
