"""A rehearsal: whether a batch can be written, found out by writing one before any message is consumed.

A look at the database does not tell: a server that only reads answers, and so does one whose disk is full, or on
which a right, a column or a trigger is not as it should be. A worker that consumed all the same would give its
messages back, or die of them, again and again, and each time counts towards the broker's limit for all in hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from pydantic_core import to_json
from sqlalchemy import text

from worker.config.reporters import Trust
from worker.errors import DeviceopsError
from worker.model.messages import ANNOUNCEMENT, REPORT, Item, Message, Origin
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.transaction import process_within
from worker.store.bulk import WORTH_COPYING
from worker.store.database import Database
from worker.store.errors import explain, is_refused

_COMMITTED = {
    "postgresql": "SELECT pg_logical_emit_message(true, 'deviceops', 'rehearsal')",
    "sqlite": "PRAGMA user_version = {version}",
}
"""A write that leaves nothing: an entry of PostgreSQL's log, and a number in SQLite's file that stays as it is."""
_ORIGIN = Origin(exchange="rehearsal")
_NOBODY = Trust(services={}, verify_user_id=True)


async def probe_write(database: Database) -> None:
    """Process a batch of every kind and roll it back, then commit a write that leaves nothing.

    A full disk, and a log that is lost, show at a commit only. Raises DeviceopsError if something is wrong that no
    further try will mend, and the database's own error if it may pass.
    """
    try:
        tally = await _probe(database)
    except Exception as error:
        if database.may_pass(error):
            raise
        raise DeviceopsError(f"database {database} takes no batch: {explain(error)}") from error
    if tally != _EXPECTED:
        raise DeviceopsError(f"database {database} takes no batch as it should: {tally}, expected {_EXPECTED}")


async def is_refused_alone(database: Database, error: Exception) -> bool:
    """Whether an error says that the database refuses what was to be written, and not whatever comes.

    Raises the database's own error if it may pass.
    """
    if not is_refused(error):
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
        for items, trust in _batches():
            tally.add(await process_within(connection, items, trust))
        await part.rollback()
        statement = _COMMITTED[connection.dialect.name]
        if database.is_sqlite:
            version = await connection.scalar(text("PRAGMA user_version"))
            statement = statement.format(version=version)
        await connection.execute(text(statement))
    return tally.document()


def _batches() -> Iterator[tuple[Sequence[Item], Trust | None]]:
    """Batches about an operation that nobody else knows, so that no worker waits for another's rehearsal."""
    operation, devices = uuid4(), [uuid4() for _ in range(WORTH_COPYING)]
    early, busy, failed = devices[:3]

    def report(device: UUID, state: str, operation: UUID = operation) -> Mapping[str, object]:
        return {
            "operation_id": operation,
            "device_id": device,
            "state": state,
            "service_id": "rehearsal",
            "operation_type": "REHEARSAL",
            "reason": "it is a rehearsal",
        }

    def announcement(id_: UUID) -> Mapping[str, object]:
        return {
            "id": id_,
            "operation_type": "REHEARSAL",
            "schedule_type": "IMMEDIATE",
            "schedule_args": {},
            "operation_device_query": {},
            "arguments": {},
            "reason": "it is a rehearsal",
            "created_by": uuid4(),
            "device_ids": devices,
        }

    yield _items(REPORT, report(early, "SUCCESS"), {"operation_id": operation}), None  # parked, and malformed
    refused = uuid4()
    yield _items(REPORT, report(early, "CREATED", refused)), _NOBODY
    yield _items(ANNOUNCEMENT, announcement(refused)), _NOBODY
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
    yield further, None  # known by what was written of them


_EXPECTED: Mapping[str, object] = {
    "received": 17,
    "applied": 4,
    "late": 1,
    "repeated": 0,
    "duplicate": 6,
    "announced": 1,
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
