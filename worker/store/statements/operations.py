"""The SQL of a batch about operations, announcements and what is left to do for operations."""

from sqlalchemy import BigInteger, Integer, Text, Uuid

from statemachine import Counters
from worker.store.bulk import Statement

# NOT EXISTS avoids a wait: inserting an existing id would wait for a transaction that is updating its counters.
CREATE_OPERATIONS = Statement(
    f"""
    INSERT INTO operations (id, state, created_at, updated_at, {", ".join(Counters._fields)})
    SELECT rows.id, '', rows.created_at, rows.created_at, {", ".join("0" for _ in Counters._fields)} FROM {{rows}}
    WHERE NOT EXISTS (SELECT 1 FROM operations WHERE operations.id = rows.id)
    ORDER BY rows.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """,
    rows={"id": "uuid", "created_at": "timestamptz"},
    returns={"id": Uuid},
)

TAKE_ANNOUNCEMENTS = Statement(
    """
    INSERT INTO announcements (operation_id, message_id)
    SELECT rows.operation_id, rows.message_id FROM {rows} WHERE true
    ORDER BY rows.operation_id, rows.message_id
    ON CONFLICT DO NOTHING
    RETURNING operation_id, message_id
    """,
    rows={"operation_id": "uuid", "message_id": "text"},
    returns={"operation_id": Uuid, "message_id": Text},
)

# What deciding needs of operations, by the clock of the database.
OPERATIONS = Statement(
    """
    SELECT o.id, o.operation_type, o.timeouts, o.deadline, o.schedule_end, {clock} AS clock
    FROM {rows} JOIN operations o ON o.id = rows.id
    """,
    rows={"id": "uuid"},
    returns={
        "id": Uuid,
        "operation_type": Text,
        "timeouts": Text,
        "deadline": BigInteger,
        "schedule_end": BigInteger,
        "clock": BigInteger,
    },
)

ANNOUNCED = Statement(
    """
    SELECT a.operation_id, a.message_id FROM {rows}
    JOIN announcements a ON a.operation_id = rows.operation_id AND a.message_id = rows.message_id
    """,
    rows={"operation_id": "uuid", "message_id": "text"},
    returns={"operation_id": Uuid, "message_id": Text},
)

WITHDRAW_OPERATIONS = Statement(
    "DELETE FROM operations WHERE id IN (SELECT rows.id FROM {rows})", rows={"id": "uuid"}
)

WITHDRAW_ANNOUNCEMENTS = Statement(
    """
    DELETE FROM announcements
    WHERE (operation_id, message_id) IN (SELECT rows.operation_id, rows.message_id FROM {rows})
    """,
    rows=TAKE_ANNOUNCEMENTS.rows,
)

_COUNTED = "settled", *Counters._fields

_CLOCK = "CAST(:clock AS bigint)"

# An operation's minute is over once something settles in a later one. A clock that is behind that of another
# transaction counts for the same minute; one that was set back by more than an hour begins another.
_IS_OVER = f"{_CLOCK} / 60000 NOT BETWEEN operations.minute - 60 AND operations.minute AND rows.settled > 0"

# The operations are locked in order of their ids before the first one is updated.
COUNT = Statement(
    f"""
    UPDATE operations
    SET updated_at = :updated_at, sequence = operations.sequence + CAST(:told AS integer),
        minute = CASE WHEN {_IS_OVER} THEN {_CLOCK} / 60000 ELSE operations.minute END,
        minute_settled = CASE WHEN {_IS_OVER} THEN rows.settled
            ELSE operations.minute_settled + COALESCE(rows.settled, 0) END,
        minute_before = CASE WHEN {_IS_OVER} THEN operations.minute ELSE 0 END,
        minute_before_settled = CASE WHEN {_IS_OVER} THEN operations.minute_settled ELSE 0 END,
        moved_at = CASE WHEN rows.settled IS NULL THEN operations.moved_at ELSE {_CLOCK} END,
        {", ".join(f"{name} = operations.{name} + rows.{name}" for name in Counters._fields)}
    FROM (
        SELECT o.id, {", ".join(f"rows.{name}" for name in _COUNTED)}
        FROM {{rows}} JOIN operations o ON o.id = rows.id ORDER BY o.id {{for_update}}
    ) AS rows
    WHERE operations.id = rows.id
    RETURNING operations.id, minute_before, minute_before_settled, operation_type, state,
        expected_device_count, timeouts, deadline, schedule_end, abort,
        tripped, operations.sequence, {", ".join(f"operations.{name}" for name in Counters._fields)}
    """,
    rows={"id": "uuid", **dict.fromkeys(_COUNTED, "bigint")},
    returns={
        "id": Uuid,
        "minute_before": BigInteger,
        "minute_before_settled": BigInteger,
        "operation_type": Text,
        "state": Text,
        "expected_device_count": Integer,
        "timeouts": Text,
        "deadline": BigInteger,
        "schedule_end": BigInteger,
        "abort": Text,
        "tripped": Text,
        "sequence": BigInteger,
        **dict.fromkeys(Counters._fields, BigInteger),
    },
)

# Minutes that are over, added to their hour. Only one transaction at a time has the lock of the operation.
KEEP_MINUTES = Statement(
    """
    INSERT INTO operation_minutes (operation_id, hour, settled)
    SELECT rows.operation_id, rows.hour, rows.settled FROM {rows} WHERE true
    ON CONFLICT (operation_id, hour) DO UPDATE SET settled = operation_minutes.settled || ' ' || excluded.settled
    """,
    rows={"operation_id": "uuid", "hour": "bigint", "settled": "text"},
)

SET_OPERATIONS = Statement(
    """
    UPDATE operations
    SET operation_type = rows.operation_type, state = rows.state,
        expected_device_count = rows.expected_device_count, timeouts = rows.timeouts, deadline = rows.deadline,
        schedule_end = rows.schedule_end, abort = rows.abort, tripped = rows.tripped,
        reason = COALESCE(rows.reason, operations.reason)
    FROM {rows} WHERE operations.id = rows.id
    """,
    rows={
        "id": "uuid",
        "operation_type": "text",
        "state": "text",
        "expected_device_count": "integer",
        "timeouts": "text",
        "deadline": "bigint",
        "schedule_end": "bigint",
        "abort": "text",
        "tripped": "text",
        "reason": "text",
    },
)

# What is left to do for an operation after the transaction that made it so.
BEGIN_TASKS = Statement(
    """
    INSERT INTO operation_tasks (operation_id, task, version)
    SELECT rows.operation_id, rows.task, 1 FROM {rows} WHERE true ORDER BY rows.operation_id, rows.task
    ON CONFLICT (operation_id, task) DO UPDATE SET version = operation_tasks.version + 1
    """,
    rows={"operation_id": "uuid", "task": "text"},
)

DESCRIBE = Statement(
    """
    UPDATE operations
    SET schedule_type = COALESCE(rows.schedule_type, operations.schedule_type),
        schedule_args = COALESCE(rows.schedule_args, operations.schedule_args),
        operation_device_query = COALESCE(rows.operation_device_query, operations.operation_device_query),
        arguments = COALESCE(rows.arguments, operations.arguments),
        reason = COALESCE(rows.reason, operations.reason),
        created_at = COALESCE(rows.created_at, operations.created_at),
        created_by = COALESCE(rows.created_by, operations.created_by),
        updated_by = COALESCE(rows.created_by, operations.updated_by)
    FROM {rows} WHERE operations.id = rows.id
    """,
    rows={
        "id": "uuid",
        "schedule_type": "text",
        "schedule_args": "json",
        "operation_device_query": "json",
        "arguments": "json",
        "reason": "text",
        "created_at": "timestamptz",
        "created_by": "uuid",
    },
)

NOTE_STATES = Statement(
    """
    INSERT INTO operation_activity (operation_id, state, created_at)
    SELECT rows.operation_id, rows.state, rows.created_at FROM {rows}
    """,
    rows={"operation_id": "uuid", "state": "text", "created_at": "timestamptz"},
)
