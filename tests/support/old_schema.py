"""Databases of older versions of the schema, with data."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path
from uuid import UUID

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Uuid, bindparam, make_url, text

import worker.store
from tests.support.databases import in_a_thread
from worker.store.database import Database
from worker.store.tables import UtcDateTime

MIGRATIONS = Path(worker.store.__file__).parent / "migrations"

OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"

DEVICES = {name: UUID(int=number) for number, name in enumerate(("one", "other", "third"))}

OF_VERSION_1 = (
    """
    INSERT INTO operations (id, operation_type, state, created_at, updated_at, resolved_device_count,
        dispatched_device_count, dispatch_failed_count, failed_device_count, success_device_count,
        settled_device_count)
    VALUES (:operation, 'CONVERGE', 'DISPATCHING', :at, :at, 2, 1, 0, 0, 1, 1)
    """,
    """
    INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at)
    VALUES (:of_one, :operation, :one, 10, false, '', :at, :at),
        (:of_other, :operation, :other, 50, true, '', :at, :at)
    """,
    """
    INSERT INTO activity (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
    VALUES (:of_one, 'created', 10, 'applied', :at, 'drift-service', ''),
        (:of_other, 'created', 10, 'applied', :at, 'drift-service', ''),
        (:of_other, 'success', 50, 'applied', :at, 'drift-service', '')
    """,
    """
    INSERT INTO dead_letters (fingerprint, reason, detail, status, attempts, received_at, operation_id, device_id,
        exchange, routing_key, properties, headers, body)
    VALUES (:one, 'malformed', 'it was not JSON', 'open', 0, :at, :operation, :one, '', '', '{}', '{}', :body)
    """,
    """
    INSERT INTO dead_letters (fingerprint, reason, detail, status, attempts, received_at, operation_id, device_id,
        device_operation_id, report_id, exchange, routing_key, properties, headers, body)
    VALUES (:parked, 'unknown_device_operation', 'it is parked', 'open', 0, :at, :operation, :third, :of_third,
        'success', '', '', '{}', '{}', :parked_body)
    """,
)


def line(device: str, state: str) -> str:
    """A report as a JSON line; what version 1 has of it has the same id."""
    ids = {"operation_id": OPERATION, "device_id": str(DEVICES[device]), "report_id": state.lower()}
    return json.dumps({**ids, "state": state, "service_id": "drift-service"})


def uuid_5(name: bytes) -> UUID:
    """What version 1 made ids of."""
    return UUID(bytes=sha1(name, usedforsecurity=False).digest()[:16], version=5)


def make(url: str, version: str, statements: Sequence[str], values: Mapping[str, object]) -> None:
    """Bring an empty database to a version, and execute statements, each with those values that it names."""

    def fill(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        for statement in statements:
            clause = text(statement)
            named = clause.compile().params.keys()
            types = [
                bindparam(name, type_=Uuid() if isinstance(values[name], UUID) else UtcDateTime())
                for name in named
                if isinstance(values[name], UUID | datetime)
            ]
            connection.execute(clause.bindparams(*types), {name: values[name] for name in named})

    async def run() -> None:
        database = Database(make_url(url))
        async with database.write() as connection:
            await connection.run_sync(fill)
        await database.close()

    in_a_thread(run())


def make_version_1(url: str) -> None:
    """Fill an empty database as version 0001 would have."""
    operation = UUID(OPERATION)
    ids = DEVICES | {f"of_{name}": uuid_5(operation.bytes + device.bytes) for name, device in DEVICES.items()}
    ids |= {"operation": operation, "parked": uuid_5(f"report {ids['of_third']}/success".encode())}
    parked_body = line("third", "SUCCESS").encode()
    make(url, "0001", OF_VERSION_1, {**ids, "at": datetime.now(UTC), "body": b"what?", "parked_body": parked_body})
