"""Who is signed in to the web page, and the key that signs its cookies."""

import secrets
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import LargeBinary, bindparam, delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.tables import UtcDateTime, page_keys, page_sessions

KEY_SIZE = 32
"""Random bytes of the key."""

# Processes that begin at the same time agree on the row of the first.
_ADD_KEY = text(
    "INSERT INTO page_keys (id, key, created_at) VALUES (1, :key, :at) ON CONFLICT (id) DO NOTHING"
).bindparams(bindparam("key", type_=LargeBinary()), bindparam("at", type_=UtcDateTime()))


class Session(NamedTuple):
    """A session: the token that signed in, and the hash that this token had then."""

    id: str
    token_name: str
    token_hash: str
    created_at: datetime
    expires_at: datetime


async def find_key(connection: AsyncConnection) -> bytes | None:
    """The key, None before it was first used."""
    return (await connection.execute(select(page_keys.c.key))).scalar_one_or_none()


async def make_key(connection: AsyncConnection) -> bytes:
    """The key, made unless there is one."""
    found = await find_key(connection)
    if found is not None:
        return found
    values = {"key": secrets.token_bytes(KEY_SIZE), "at": datetime.now(UTC)}
    await connection.execute(_ADD_KEY, values)
    key = await find_key(connection)
    assert key is not None
    return key


async def add(connection: AsyncConnection, session: Session) -> None:
    """Add a session, and remove those that have expired."""
    await connection.execute(delete(page_sessions).where(page_sessions.c.expires_at < datetime.now(UTC)))
    await connection.execute(insert(page_sessions).values(session._asdict()))


async def find(connection: AsyncConnection, id_: str) -> Session | None:
    """A session, None if it has ended; one that has expired may be found."""
    query = select(*(page_sessions.c[name] for name in Session._fields)).where(page_sessions.c.id == id_)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Session(*row)


async def end(connection: AsyncConnection, id_: str) -> bool:
    """Remove a session; returns whether it was there."""
    return (await connection.execute(delete(page_sessions).where(page_sessions.c.id == id_))).rowcount > 0
