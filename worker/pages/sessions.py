"""Sessions of the web page: a signed cookie, and a row in the database that ends with signing out.

The cookie has a random id, the row its SHA-256. A session ends when it expires, when it is signed out, and when
its token is removed from the settings or replaced by another one of the same name; its scopes are those that the
token has now.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.context import Context
from worker.config.api_tokens import Caller, Token
from worker.store import page_sessions
from worker.store.page_sessions import Session

LASTS = timedelta(hours=12)
CHECKED_FOR = 1
"""Seconds for which a session that was found is not looked up again; signing out here ends it at once."""
_REMEMBERED = 1_000
"""Sessions that are not looked up again, at most."""


class Found(NamedTuple):
    """A session that is valid: its id in the database, and its caller."""

    id: str
    caller: Caller


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, tokens: Mapping[str, Token]) -> None:
        self._tokens = tokens
        self._key: bytes | None = None
        self._found: dict[str, _LookUp] = {}

    async def open(self, connection: AsyncConnection, caller: Caller) -> str:
        """Add a session of a caller with a token; returns the value of its cookie."""
        self._key = await page_sessions.make_key(connection)
        secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
        row = Session(_digest(secret), caller.name, self._tokens[caller.name].hash, now, now + LASTS)
        await page_sessions.add(connection, row)
        return _signer(self._key).sign(secret).decode()

    async def find(self, shared: Context, cookie: str | None) -> Found | None:
        """The session of a cookie, None if there is none that is valid. Raises the database's errors."""
        if not cookie:
            return None
        id_ = _id_of(cookie, await self.key(shared))
        row = None if id_ is None else await self._row(shared, id_)
        if row is None or row.expires_at <= datetime.now(UTC):
            return None
        token = self._tokens.get(row.token_name)
        if token is None or not compare_digest(token.hash, row.token_hash):
            return None
        return Found(row.id, Caller(row.token_name, token.scopes))

    async def end(self, connection: AsyncConnection, id_: str) -> None:
        """End a session; `forget` it after the commit."""
        await page_sessions.end(connection, id_)

    def forget(self, id_: str) -> None:
        """Look a session up again at its next request."""
        self._found.pop(id_, None)

    async def key(self, shared: Context) -> bytes:
        """The key that signs cookies, made at its first use."""
        if self._key is None:
            async with shared.database.read() as connection:
                self._key = await page_sessions.find_key(connection)
        if self._key is None:
            async with shared.writing.write(is_counted=False) as connection:
                self._key = await page_sessions.make_key(connection)
        return self._key

    async def serializer(self, shared: Context, salt: str) -> URLSafeTimedSerializer:
        """Signs other values with the same key."""
        return URLSafeTimedSerializer(await self.key(shared), salt=salt, signer_kwargs={"digest_method": sha256})

    async def _row(self, shared: Context, id_: str) -> Session | None:
        """The row of a session, looked up once for all that ask within `CHECKED_FOR`."""
        known = self._found.get(id_)
        if known is None or (known.task.done() and not known.is_fresh):
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            known = self._found[id_] = _LookUp(time.monotonic(), asyncio.create_task(_read(shared, id_)))
        return await asyncio.shield(known.task)


class _LookUp(NamedTuple):
    began: float
    task: asyncio.Task[Session | None]

    @property
    def is_fresh(self) -> bool:
        """Whether a session was found, a moment ago."""
        is_found = not self.task.cancelled() and self.task.exception() is None and self.task.result() is not None
        return is_found and time.monotonic() - self.began < CHECKED_FOR


async def _read(shared: Context, id_: str) -> Session | None:
    async with shared.database.read() as connection:
        return await page_sessions.find(connection, id_)


def _signer(key: bytes) -> TimestampSigner:
    return TimestampSigner(key, salt="session", digest_method=sha256)


@lru_cache(_REMEMBERED)
def _id_of(cookie: str, key: bytes) -> str | None:
    """The id of the session of a cookie, whose row says when it ends; None if it is not signed with the key."""
    try:
        return _digest(_signer(key).unsign(cookie, max_age=LASTS // timedelta(seconds=1)).decode())
    except (BadSignature, UnicodeError):
        return None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
