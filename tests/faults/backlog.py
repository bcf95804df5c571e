"""A backlog of parked reports that wait for one announcement."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import asyncpg
from sqlalchemy import func, insert, make_url, select

from tests.support.databases import read
from tests.support.sending import announcement_body, report_body
from worker.model.identity import device_operation_id
from worker.model.outcomes import Reason, Status
from worker.store.database import Database
from worker.store.tables import dead_letters, operations

OPERATION = UUID(int=0xABC)

STATES = ("INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS")


def devices(reports: int) -> list[UUID]:
    """The devices that so many reports are about."""
    return [uuid5(OPERATION, str(number)) for number in range(reports // len(STATES))]


def parked(reports: int) -> Iterator[dict[str, Any]]:
    """Rows of parked reports."""
    now = datetime.now(UTC)
    for state in STATES:
        for device in devices(reports):
            yield {
                "fingerprint": uuid4(),
                "reason": Reason.UNKNOWN_DEVICE_OPERATION,
                "detail": "it waits for the registration",
                "status": Status.OPEN,
                "attempts": 1,
                "received_at": now,
                "operation_id": OPERATION,
                "device_id": device,
                "service_id": "drift-service",
                "device_operation_id": device_operation_id(OPERATION, device),
                "report_id": state,
                "exchange": "",
                "routing_key": "",
                "properties": {},
                "headers": {},
                "body": json.dumps(report_body(OPERATION, device, state, report_id=state)).encode(),
            }


async def park(url: str, reports: int) -> None:
    """Have reports wait."""
    rows = list(parked(reports))
    if make_url(url).get_backend_name() == "postgresql":
        connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
        records = [[json.dumps(each) if isinstance(each, dict) else each for each in row.values()] for row in rows]
        await connection.copy_records_to_table("dead_letters", records=records, columns=list(rows[0]))
        await connection.close()
        return
    database = Database(make_url(url))
    async with database.write() as connection:
        await connection.execute(insert(dead_letters), rows)
    await database.close()


async def is_released(url: str, reports: int) -> bool:
    """Whether everything was taken up."""
    database = Database(make_url(url))
    async with database.read() as connection:
        query = select(func.sum(operations.c.success_device_count)).where(operations.c.id == OPERATION)
        found = (await connection.execute(query)).scalar_one()
    await database.close()
    return bool(found == reports // len(STATES))


async def assert_released(url: str, reports: int) -> None:
    """Everything was taken up, once."""
    database = Database(make_url(url))
    stored = await read(database)
    await database.close()
    assert stored.dead_letters.total() == 0
    assert stored.operations[OPERATION].counters["success_device_count"] == reports // len(STATES)
    assert stored.operations[OPERATION].states[-1] == "COMPLETED"
    assert stored.operations[OPERATION].states.count("COMPLETED") == 1


def announcement(reports: int) -> dict[str, Any]:
    return announcement_body(OPERATION, devices(reports))
