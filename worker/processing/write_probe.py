"""Probe: whether the database accepts a batch, by writing one before any message is consumed.

A query is no proof: a read-only server answers, and so does one with a full disk, or with a missing privilege, a
missing column or a failing trigger. A worker that consumed nevertheless would return its messages, or crash, again
and again, and each time counts towards the broker's delivery limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy import text

from worker.config.reporters import Reporters
from worker.errors import DeviceopsError
from worker.model.messages import ANNOUNCEMENT, REPORT, Item, Message, Origin
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.transaction import process_within
from worker.store import batch as store
from worker.store.bulk import WORTH_COPYING
from worker.store.database import Database
from worker.store.errors import is_rejected, one_line_error

_COMMITTED = {
    "postgresql": "SELECT pg_logical_emit_message(true, 'deviceops', 'probe')",
    "sqlite": "PRAGMA user_version = {version}",
}
"""A write without effect: a WAL record of PostgreSQL, and an unchanged number in SQLite's file."""
_ORIGIN = Origin(exchange="probe")
_NO_REPORTER = Reporters(services={}, verify_user_id=True)


async def probe_write(database: Database) -> None:
    """Process a batch of every kind and roll it back, then commit a write without effect.

    A full disk, and a lost WAL, show at a commit only. Raises DeviceopsError on a permanent failure, and the
    database's own error on a transient one.
    """
    try:
        tally = await _probe(database)
    except Exception as error:
        if database.is_retryable(error):
            raise
        raise DeviceopsError(f"database {database} takes no batch: {one_line_error(error)}") from error
    if tally != _EXPECTED:
        raise DeviceopsError(f"database {database} takes no batch as it should: {tally}, expected {_EXPECTED}")


async def is_refused_alone(database: Database, error: Exception) -> bool:
    """Whether the database refuses this data, and not every batch.

    Raises the database's own error on a transient failure.
    """
    if not is_rejected(error):
        return False
    try:
        await probe_write(database)
    except DeviceopsError:
        return False
    return True


async def _probe(database: Database) -> Mapping[str, object]:
    tally = Tally()
    async with database.write(is_counted=False) as connection:
        part = await connection.begin_nested()
        for items, reporters in _batches():
            tally.add(await process_within(connection, items, reporters))
        await store.keep_minutes(connection, [(uuid4(), 0, 1)])  # what batches do once a minute is over
        await part.rollback()
        statement = _COMMITTED[connection.dialect.name]
        if database.is_sqlite:
            version = await connection.scalar(text("PRAGMA user_version"))
            statement = statement.format(version=version)
        await connection.execute(text(statement))
    return tally.document()


def _batches() -> Iterator[tuple[Sequence[Item], Reporters | None]]:
    """Batches about an operation of its own, so that no worker waits for another's probe."""
    operation, devices = uuid4(), [uuid4() for _ in range(WORTH_COPYING)]
    early, busy, failed = devices[:3]

    def report(device: UUID, state: str, operation: UUID = operation) -> Mapping[str, object]:
        return {
            "operation_id": operation,
            "device_id": device,
            "state": state,
            "service_id": "probe",
            "operation_type": "PROBE",
            "reason": "write probe",
        }

    def announcement(id_: UUID) -> Mapping[str, object]:
        return {
            "id": id_,
            "operation_type": "PROBE",
            "schedule_type": "IMMEDIATE",
            "schedule_args": {},
            "operation_device_query": {},
            "arguments": {},
            "reason": "write probe",
            "created_by": uuid4(),
            "device_ids": devices,
        }

    yield _items(REPORT, report(early, "SUCCESS"), {"operation_id": operation}), None  # parked, and malformed
    refused = uuid4()
    yield _items(REPORT, report(early, "CREATED", refused)), _NO_REPORTER
    yield _items(ANNOUNCEMENT, announcement(refused)), _NO_REPORTER
    yield _items(ANNOUNCEMENT, announcement(operation)), None
    further = _items(
        REPORT,
        report(uuid4(), "CREATED"),
        report(busy, "PROCESSING"),
        report(busy, "DISPATCHED"),
        report(failed, "FAILURE"),
        report(failed, "SUCCESS"),
        report(uuid4(), "FAILURE"),
    )
    yield further, None
    yield further, None  # duplicates by now
    yield _items(ANNOUNCEMENT, {**announcement(operation), "timeouts": {"total": 60}}), None  # leaves a task


_EXPECTED: Mapping[str, object] = {
    "received": 18,
    "applied": 4,
    "late": 1,
    "repeated": 0,
    "duplicate": 6,
    "announced": 2,
    "released": 1,
    "dead_lettered": {
        "conflict": 1,
        "malformed": 1,
        "unknown_device_operation": 2,
        "unknown_service": 2,
    },
}


def _items(type_: str, *bodies: Mapping[str, object]) -> list[Item]:
    now = datetime.now(UTC)
    messages = [Message(to_json(body), now, str(uuid4()), type_, origin=lambda: _ORIGIN) for body in bodies]
    return [item for message in messages for item in parse(message)]
