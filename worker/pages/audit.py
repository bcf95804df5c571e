"""Who did what on the web page. Every act is recorded before or with what it does, with its request id."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.context import Context
from worker.errors import DeviceopsError
from worker.model.text import one_line
from worker.store import audit

OUTCOME = "outcome"
"""Key of the detail of acts that have transactions of their own: what came of it."""
BEGUN = "begun"
"""The outcome of an act that has not ended, or whose process was killed."""


async def record(
    connection: AsyncConnection, request: Request, action: str, target: str, detail: Mapping[str, Any]
) -> None:
    """Record an act in the transaction that does it.

    `action` is a verb such as `operation.cancel`, `target` an id or an address, `detail` an object of JSON. Who is
    the caller whom `may` has let in.
    """
    await audit.add(connection, request.user.name, _request_id(), action, target, detail)


@asynccontextmanager
async def acting(
    shared: Context, request: Request, action: str, target: str, detail: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Record an act that has transactions of its own: before the block, and its outcome after it.

    The block adds what came of it to the dictionary; an error is recorded as its outcome and raised.
    """
    outcome: dict[str, Any] = {}
    async with shared.writing.write(is_counted=False) as connection:
        begun = {**detail, OUTCOME: BEGUN}
        id_ = await audit.add(connection, request.user.name, _request_id(), action, target, begun)
    try:
        yield outcome
    except Exception as error:
        why = one_line(str(error)) if isinstance(error, DeviceopsError) else type(error).__name__
        outcome.setdefault(OUTCOME, f"failed: {why}")
        raise
    finally:
        outcome.setdefault(OUTCOME, "done")
        async with shared.writing.write(is_counted=False) as connection:
            await audit.complete(connection, id_, {**detail, **outcome})


def _request_id() -> str:
    return correlation_id.get() or ""
