"""Operations and device operations with few different values each, for tests of filters and exports."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import insert

from statemachine import Counters, OperationState, State, contribution
from worker.model import state_times
from worker.model.causes import cause
from worker.model.identity import device_operation_id
from worker.store.database import Database
from worker.store.tables import device_operations, operations

Row = dict[str, Any]

OPERATION, OTHER, EMPTY = UUID(int=1), UUID(int=2), UUID(int=3)
START = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = [START + timedelta(microseconds=number) for number in range(-1, 6)]
"""The first and the last are of no row."""
STATES = (State.CREATED, State.SUCCESS, State.FAILURE, State.TIMEOUT)
SERVICES = (None, "drift-service", "deviceops")
CODES = (None, None, "E1", "E2")
REASONS = ("no route to 10.0.0.1", "no route to 10.0.0.2", "=1+1", 'disk "full",\r\nor \u00fc\u2028 so')
TYPES = (None, "CONVERGE", "=REBOOT")


class Filled(NamedTuple):
    """All rows of both tables."""

    operations: list[Row]
    device_operations: list[Row]

    def of(self, operation: UUID) -> list[Row]:
        """The device operations of an operation."""
        return [row for row in self.device_operations if row["operation_id"] == operation]


def device_operation(operation: UUID, random: Random) -> Row:
    """A row with values drawn from the few above."""
    device, state, code = UUID(int=random.getrandbits(128)), random.choice(STATES), random.choice(CODES)
    reason = random.choice(REASONS)
    return {
        "id": device_operation_id(operation, device),
        "operation_id": operation,
        "device_id": device,
        "state": state,
        "dispatched": random.random() < 0.5,
        "reason": reason,
        "code": code,
        "service_id": random.choice(SERVICES),
        "cause": cause(state, code, reason),
        "created_at": random.choice(MOMENTS[1:-1]),
        "updated_at": random.choice(MOMENTS[1:-1]),
        "reached": "".join(state_times.entry(each, START) for each in {State.CREATED, state}),
        "registered_at": 0,
        "reported_at": 0,
    }


def operation(id_: UUID, rows: list[Row], random: Random) -> Row:
    """An operation whose counters are those of its device operations."""
    counters = Counters()
    for row in rows:
        counters = counters.plus(contribution(row["state"], row["dispatched"]))
    return {
        "id": id_,
        "operation_type": random.choice(TYPES),
        "state": random.choice(list(OperationState)).value,
        "reason": random.choice(REASONS),
        "created_at": random.choice(MOMENTS[1:-1]),
        "updated_at": random.choice(MOMENTS[1:-1]),
        **counters._asdict(),
    }


async def fill(database: Database, number: int = 60) -> Filled:
    """An operation of the given size, one of 20 device operations, one of none, and 20 of a single device."""
    random = Random("filters")  # noqa: S311  # a test's numbers, not a secret
    others = [UUID(int=random.getrandbits(128)) for _ in range(20)]
    rows = [device_operation(OPERATION, random) for _ in range(number)]
    rows += [device_operation(OTHER, random) for _ in range(20)]
    device = rows[0]["device_id"]
    rows += [
        {**device_operation(other, random), "id": device_operation_id(other, device), "device_id": device}
        for other in others[:10]
    ]
    filled = Filled([], rows)
    filled.operations.extend(operation(id_, filled.of(id_), random) for id_ in (OPERATION, OTHER, EMPTY, *others))
    async with database.write() as connection:
        await connection.execute(insert(operations), filled.operations)
        await connection.execute(insert(device_operations), filled.device_operations)
    return filled
