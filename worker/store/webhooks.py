"""Webhooks in the database: which there are, and how each of them does.

The row of a webhook is locked before its deliveries are.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, delete, literal, literal_column, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.bulk import clock_of
from worker.store.outbox import LOG
from worker.store.tables import change_cursors, webhook_deliveries, webhooks

CURSOR = "webhooks"
"""Name of the cursor of what is owed to webhooks already."""


class WebhookState(NamedTuple):
    """How a webhook does; times are milliseconds since 1970."""

    name: str
    off_at: int | None
    failures: int
    """Failed attempts since the last success."""
    succeeded_at: int | None
    success_status: int | None
    failed_at: int | None
    failure_status: int | None
    failure: str | None
    given_up: int
    dropped: int

    @property
    def condition(self) -> str:
        """In a word: `off`, `failing` or `on`."""
        return "off" if self.off_at is not None else "failing" if self.failures else "on"


def clock(connection: AsyncConnection) -> ColumnElement[int]:
    """The database's clock, in milliseconds since 1970."""
    return literal_column(clock_of(connection.dialect.name), BigInteger)


async def spare_the_disk(connection: AsyncConnection) -> None:
    """Let a transaction's commit not wait for the disk (PostgreSQL).

    If the server crashes, the last of them are lost, in their order: what was owed is read from the log again, as
    the cursor was advanced later, and what was delivered is delivered once more.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL synchronous_commit = off"))


async def register(connection: AsyncConnection, types: Mapping[str, str], *, replaces: bool) -> None:
    """Note that a worker has webhooks, with the types of their changes; a new one begins at the end of the log.

    `replaces` is whether the types that one has already are replaced.
    """
    inserting = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    end = select(change_cursors.c.position).where(change_cursors.c.name == LOG).scalar_subquery()
    begin = inserting(change_cursors).from_select(
        ["name", "position", "held_until"],
        select(literal(CURSOR), change_cursors.c.position, clock(connection) - 1).where(
            change_cursors.c.name == LOG
        ),
    )
    await connection.execute(begin.on_conflict_do_nothing())
    for name in sorted(types):  # in the order in which all lock them
        adding = inserting(webhooks).values(name=name, types=types[name], position=end, seen_at=clock(connection))
        kept = {"seen_at": adding.excluded.seen_at}
        values = {**kept, "types": adding.excluded.types} if replaces else kept
        await connection.execute(adding.on_conflict_do_update(index_elements=["name"], set_=values))


async def forget(connection: AsyncConnection, after: int) -> Sequence[str]:
    """Remove webhooks that no worker has had for so many milliseconds, with all that is owed to them.

    Without any left, nothing needs the log. Returns their names.
    """
    column = webhooks.c
    outdated = select(column.name).where(column.seen_at < clock(connection) - after)
    names = (await connection.execute(outdated.order_by(column.name).with_for_update())).scalars().all()
    if names:
        await connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook.in_(names)))
        await connection.execute(delete(webhooks).where(column.name.in_(names)))
        is_unused = ~select(column.name).exists()
        await connection.execute(delete(change_cursors).where(change_cursors.c.name == CURSOR, is_unused))
    return names


async def enable(connection: AsyncConnection, name: str) -> bool:
    """Switch a webhook on, and have all that is owed to it sent now. Returns whether there is one.

    One that was off starts at the present: earlier changes are not sent to it.
    """
    column, delivery = webhooks.c, webhook_deliveries.c
    on = update(webhooks).where(column.name == name).values(off_at=None, failures=0, resumes_at=0)
    if not (await connection.execute(on)).rowcount:
        return False
    waiting = update(webhook_deliveries).where(delivery.webhook == name, delivery.lease.is_(None))
    await connection.execute(waiting.values(due_at=clock(connection)))
    return True


async def states(connection: AsyncConnection) -> Sequence[WebhookState]:
    """How each webhook does, by name."""
    columns = (webhooks.c[name] for name in WebhookState._fields)
    return [WebhookState(*row) for row in await connection.execute(select(*columns).order_by(webhooks.c.name))]
