"""Dead letters for the tests of pages: many, for several reasons, and what the database has of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import make_url, text

from tests.support.databases import in_a_thread
from tests.support.sending import ANNOUNCEMENT, announcement_body, message, report_body
from worker.config.reporters import Reporters, Service
from worker.model.messages import Message
from worker.processing.batches import process_messages
from worker.store.database import Database

KNOWN, NEW = "drift-service", "new-service"
"""A service that may report, and one that is not allowed to yet."""
_BATCH = 1_000


def send(url: str, messages: Sequence[Message], *, is_strict: bool = False) -> None:
    """Have messages processed; `is_strict` lets only `KNOWN` report."""
    reporters = Reporters({KNOWN: Service()}) if is_strict else None

    async def run() -> None:
        database = Database(make_url(url))
        try:
            for start in range(0, len(messages), _BATCH):
                await process_messages(database, messages[start : start + _BATCH], reporters=reporters)
        finally:
            await database.close()

    in_a_thread(run())


def rows(url: str, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """What a statement finds."""

    async def run() -> list[tuple[Any, ...]]:
        database = Database(make_url(url))
        try:
            async with database.read() as connection:
                return [tuple(row) for row in await connection.execute(text(statement), values)]
        finally:
            await database.close()

    return in_a_thread(run())


def of(body: object, kind: str | None = None) -> Message:
    """A message with an id of its own."""
    return message(body, kind, str(uuid4()))


def an_evening(url: str, *, parked: int, untrusted: int, conflicts: int, malformed: int) -> UUID:
    """One after which messages are dead letters for four reasons, and an announcement among them.

    The announcement has a fault, so that reports about its devices are parked. Gives the operation.
    """
    operation, late = uuid4(), uuid4()
    devices = [uuid4() for _ in range(max(untrusted, conflicts, malformed))]
    waiting = [uuid4() for _ in range(parked)]
    bodies = [report_body(operation, device, "CREATED") for device in devices]
    bodies += [report_body(operation, device, "FAILURE") for device in devices[:conflicts]]
    bodies += [report_body(operation, device, "SUCCESS") for device in devices[:conflicts]]
    bodies += [report_body(operation, device, "DISPATCHED", service_id=NEW) for device in devices[:untrusted]]
    bodies += [report_body(operation, device, f"FINE{n}") for n, device in enumerate(devices[:malformed])]
    bodies += [report_body(late, device, "SUCCESS") for device in waiting]
    faulty = announcement_body(late, waiting, timeouts={"total": -1})
    send(url, [*map(of, bodies), of(faulty, ANNOUNCEMENT)], is_strict=True)
    return late
