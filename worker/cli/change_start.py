"""Where `deviceops changes` begins, and whether something before is missed."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.cli.options import known, one_operation
from worker.errors import DeviceopsError
from worker.model.id_range import IdRange
from worker.store import queries
from worker.store.change_log import extent, position_of
from worker.store.change_page import Missed, missed_after
from worker.store.tables import changes, operations, outbox


class Start(NamedTuple):
    """Where reading begins."""

    operation_id: UUID | None
    """The operation that is asked for."""
    position: int
    end: int
    """The end of the log at that moment."""


async def start_of(connection: AsyncConnection, wanted: IdRange | None, since: int | None) -> Start:
    """Where to begin for the options of the command. Raises DeviceopsError if changes between are not kept."""
    log = await extent(connection)
    if wanted is None:
        if since is None:
            return Start(None, log.first - 1, log.last)
        missed = missed_after(since, log)
        if missed is Missed.BEYOND_END:
            raise DeviceopsError(f"--since {since}: there is no such position, the last one is {log.last}")
        if missed is Missed.REMOVED:
            kept = f"--since {log.first - 1} prints those that are"
            raise DeviceopsError(f"--since {since}: changes after it are not kept any more; {kept}")
        return Start(None, since, log.last)
    operation_id = await one_operation(connection, wanted)
    known(await queries.get_operation(connection, operation_id), operation_id)
    position = log.first - 1
    if since is not None:
        await _require_kept(connection, operation_id, since)
        position = max(position, await position_of(connection, operation_id, since))
    return Start(operation_id, position, log.last)


async def _require_kept(connection: AsyncConnection, operation_id: UUID, since: int) -> None:
    of_it = select(operations.c.sequence).where(operations.c.id == operation_id)
    last = (await connection.execute(of_it)).scalar_one()
    if since > last:
        raise DeviceopsError(f"--since {since}: the operation has no such change, the last one is {last}")
    # What another process has committed since may not be numbered yet.
    kept = union_all(
        *(
            select(table.c.sequence.label("sequence")).where(
                table.c.aggregateid == str(operation_id), table.c.sequence > since
            )
            for table in (changes, outbox)
        )
    ).subquery()
    first = (await connection.execute(select(func.min(kept.c.sequence)))).scalar_one()
    if since < last and first != since + 1:
        others = "none of them is" if first is None else f"--since {first - 1} prints those that are"
        raise DeviceopsError(f"--since {since}: changes after it are not kept any more; {others}")
