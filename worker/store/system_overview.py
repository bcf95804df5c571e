"""How deviceops itself does, as the database has it: workers, the log of changes, what waits."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.outcomes import Reason
from worker.model.timing import milliseconds, moment
from worker.model.watermark import GONE_AFTER, Phase, Progress
from worker.store import change_log, dead_letters, due, tables, webhook_deliveries, webhooks, workers
from worker.store.bulk import clock_of
from worker.store.change_log import Extent, Outstanding
from worker.store.documents import Backlog
from worker.store.recount import Recount, last_recount
from worker.store.tables import change_cursors, consumers
from worker.store.webhook_deliveries import Owed
from worker.store.webhooks import WebhookState

_SIZE = {
    "postgresql": "SELECT pg_database_size(current_database())",
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
}


class WorkerSeen(NamedTuple):
    """A worker that announces itself."""

    id: UUID
    partitions: int
    """How many it declares; 0 if it shares nothing."""
    seen_at: datetime

    @property
    def is_sharing(self) -> bool:
        """Whether it shares partitions with others."""
        return self.partitions != workers.SHARES_NOTHING

    @property
    def gone_after(self) -> timedelta:
        """How long after an announcement it counts as gone."""
        return workers.GONE_AFTER if self.is_sharing else timedelta(seconds=2.5 * workers.SHOWN_EVERY)


class QueueSeen(NamedTuple):
    """What a worker says of a queue, which it does while timeouts are due or about to be."""

    worker_id: UUID
    queue: str
    phase: Phase
    seen_at: datetime
    processed_until: datetime | None
    """What was published to the queue before is processed; None if that is not known."""


class Seen(NamedTuple):
    """The workers of a topology, by what they have written lately."""

    clock: datetime
    """The database's."""
    workers: Sequence[WorkerSeen]
    queues: Sequence[QueueSeen]

    def is_gone(self, seen_at: datetime, after: timedelta = timedelta(milliseconds=GONE_AFTER)) -> bool:
        """Whether a worker that was seen then counts as gone; by default one that says how far it has come."""
        return seen_at < self.clock - after

    def lag(self, queue: str) -> timedelta | None:
        """How old the oldest message of a queue may be that is not processed; None if that is not known."""
        said = [each for each in self.queues if each.queue == queue and not self.is_gone(each.seen_at)]
        until = [each.processed_until for each in said if each.processed_until is not None]
        return self.clock - max(until) if until else None


class Relay(NamedTuple):
    """How far the changes of a topology are published to the broker."""

    position: int
    is_held: bool
    """Whether a worker publishes."""


class Log(NamedTuple):
    """The log of changes, and those who read it."""

    extent: Extent
    relay: Relay | None
    """None if no worker has published yet."""
    webhooks: Sequence[WebhookState]
    recount: Recount | None
    schema: str
    """The revision of the tables."""
    latency: float
    """Seconds that a statement takes which reads nothing."""


class Waiting(NamedTuple):
    """What waits: each number costs as much as there is."""

    open: Mapping[Reason, int]
    """Open dead letters by reason."""
    parked: Backlog
    unpublished: Outstanding
    owed: Mapping[str, Owed]
    """To each webhook."""
    due: int
    """Device operations that are over and not timed out yet."""
    next_timeout: datetime | None


async def seen(connection: AsyncConnection, prefix: str) -> Seen:
    """The workers of a topology; rows of a time to come are from before the clock was set back."""
    clock: int = (await connection.execute(select(_clock(connection)))).scalar_one()
    announced = [tables.workers.c[name] for name in WorkerSeen._fields]
    query = select(*announced).where(tables.workers.c.topology_prefix == prefix).order_by(tables.workers.c.id)
    found = [WorkerSeen(*row) for row in await connection.execute(query)]
    columns = [consumers.c[name] for name in Progress._fields]
    of_prefix = select(*columns).where(consumers.c.topology_prefix == prefix)
    rows = [Progress(*row) for row in await connection.execute(of_prefix.order_by(*columns[:2]))]
    latest = moment(clock) + timedelta(milliseconds=GONE_AFTER)
    return Seen(
        moment(clock),
        [each for each in found if each.seen_at <= latest],
        [
            QueueSeen(
                row.worker_id,
                row.queue,
                Phase(row.phase),
                moment(row.seen_at),
                moment(row.processed_until) if row.processed_until else None,
            )
            for row in rows
            if row.seen_at <= milliseconds(latest)
        ],
    )


async def log(connection: AsyncConnection, prefix: str) -> Log:
    """What costs the same however much there is."""
    began = time.perf_counter()
    await connection.execute(select(literal_column("1")))
    latency = time.perf_counter() - began
    column = change_cursors.c
    query = select(column.position, column.held_until > _clock(connection))
    row = (await connection.execute(query.where(column.name == f"{change_log.RELAY}{prefix}"))).one_or_none()
    schema = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars()
    return Log(
        await change_log.extent(connection),
        None if row is None else Relay(row[0], bool(row[1])),
        await webhooks.states(connection),
        await last_recount(connection),
        ", ".join(schema),
        latency,
    )


async def waiting(connection: AsyncConnection, prefix: str, stale_before: datetime) -> Waiting:
    """What waits; parked reports that were received before `stale_before` are stale."""
    outlook = await due.outlook(connection)
    return Waiting(
        await dead_letters.open_by_reason(connection),
        await dead_letters.backlog(connection, stale_before),
        await change_log.outstanding(connection, f"{change_log.RELAY}{prefix}"),
        await webhook_deliveries.owed(connection),
        await due.count_due(connection, outlook.clock),
        None if outlook.first is None else moment(outlook.first),
    )


async def size(connection: AsyncConnection) -> int:
    """Bytes that the database takes; on PostgreSQL that costs a look at each of its files."""
    return int((await connection.execute(text(_SIZE[connection.dialect.name]))).scalar_one())


def _clock(connection: AsyncConnection) -> ColumnElement[int]:
    return literal_column(clock_of(connection.dialect.name), BigInteger)
