"""The audit log: who did what on the web page, when, and by which request."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.text import clean
from worker.store.tables import audit_log

KEPT = timedelta(days=365)
"""Older rows are removed by `deviceops prune`."""

_c = audit_log.c


class Entry(NamedTuple):
    """A row: `who` is the name of a token, `target` what was acted on, `detail` an object of JSON."""

    id: int
    at: datetime
    who: str
    request_id: str
    action: str
    target: str
    detail: Mapping[str, Any]


async def add(
    connection: AsyncConnection, who: str, request_id: str, action: str, target: str, detail: Mapping[str, Any]
) -> int:
    """Add a row, dated now; returns its id."""
    values = {"who": who, "request_id": request_id, "action": action, "target": target, "detail": _cleaned(detail)}
    adding = insert(audit_log).values(at=datetime.now(UTC), **values).returning(_c.id)
    added: int = (await connection.execute(adding)).scalar_one()
    return added


async def complete(connection: AsyncConnection, id_: int, detail: Mapping[str, Any]) -> None:
    """Replace the detail of a row."""
    await connection.execute(update(audit_log).where(_c.id == id_).values(detail=_cleaned(detail)))


def _cleaned(detail: Mapping[str, Any]) -> dict[str, Any]:
    """The detail with text that PostgreSQL can read out of JSON."""
    return {name: clean(value) if isinstance(value, str) else value for name, value in detail.items()}


async def latest(
    connection: AsyncConnection, limit: int, before: int | None = None, target: str | None = None
) -> Sequence[Entry]:
    """The latest rows, newest first; those before an id, and of one target, if they are given."""
    query = select(*(_c[name] for name in Entry._fields)).order_by(_c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_c.id < before)
    if target is not None:
        query = query.where(_c.target == target)
    return [Entry(*row) for row in await connection.execute(query)]


async def remove(connection: AsyncConnection, before: datetime, size: int) -> int:
    """Delete up to `size` rows from before a time, the oldest first; returns their number."""
    oldest = select(_c.id, _c.at).order_by(_c.id).limit(size).subquery()
    ids = (await connection.scalars(select(oldest.c.id).where(oldest.c.at < before))).all()
    await connection.execute(delete(audit_log).where(_c.id.in_(ids)))
    return len(ids)
