"""Registrations, and a database that refuses some of them."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from worker.model.messages import Message
from worker.store.database import Database

POISON = "poison-service"


def message(body: dict[str, Any], type_: str | None = None) -> Message:
    return Message(json.dumps(body).encode(), datetime.now(UTC), type=type_)


def report(device: UUID, service: str = "drift-service", operation: UUID | None = None) -> Message:
    return message(
        {
            "operation_id": str(operation or uuid4()),
            "device_id": str(device),
            "state": "CREATED",
            "service_id": service,
        }
    )


async def refuse_poison(database: Database) -> None:
    """Make the database refuse history of one service: a fault of data that no check of ours foresees."""
    async with database.write() as connection:
        if database.is_sqlite:
            await connection.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE INSERT ON device_operation_activity "
                    "WHEN new.service_id = 'poison-service' BEGIN SELECT RAISE(ABORT, 'poison is refused'); END"
                )
            )
        else:
            constraint = "ADD CONSTRAINT refuse CHECK (service_id <> 'poison-service')"
            await connection.execute(text(f"ALTER TABLE device_operation_activity {constraint}"))
