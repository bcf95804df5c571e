"""The SQL of a batch about device operations and their history."""

from sqlalchemy import BigInteger, Boolean, SmallInteger, Text, Uuid

from statemachine import State, Verdict
from worker.store.bulk import Statement

CLAIM = Statement(
    f"""
    INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at,
        reached, service_id, registered_at, reported_at, expires_at)
    SELECT rows.id, rows.operation_id, rows.device_id, {State.CREATED:d}, false, '', rows.created_at, :updated_at,
        rows.reached, rows.service_id, :clock, :clock, rows.expires_at
    FROM {{rows}} WHERE true
    ORDER BY rows.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
    """,
    rows={
        "id": "uuid",
        "operation_id": "uuid",
        "device_id": "uuid",
        "created_at": "timestamptz",
        "reached": "text",
        "service_id": "text",
        "expires_at": "bigint",
    },
    returns={"id": Uuid},
)

# Of an operation that the transaction has created: no other one can register the same.
REGISTER = Statement(
    f"""
    INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at,
        reached, registered_at, reported_at, expires_at)
    SELECT rows.id, :operation_id, rows.device_id, {State.CREATED:d}, false, '', :at, :at,
        CAST(:reached AS text), :clock, :clock, CAST(:expires_at AS bigint)
    FROM {{rows}}
    """,
    rows={"id": "uuid", "device_id": "uuid"},
)

# The history of everything that `REGISTER` has inserted for operations. The range of ids is that of an operation's
# device operations: without it, statistics from before they were inserted lead to a scan of a whole index.
RECORD_REGISTRATIONS = Statement(
    f"""
    INSERT INTO device_operation_activity
        (device_operation_id, report_id, state, verdict, created_at, service_id, reason, recorded_at)
    SELECT o.id, rows.report_id, {State.CREATED:d}, '{Verdict.APPLIED}', rows.created_at, '', '', rows.recorded_at
    FROM {{rows}} JOIN device_operations o
        ON o.id BETWEEN rows.first AND rows.last AND o.operation_id = rows.operation_id
    """,
    rows={
        "operation_id": "uuid",
        "first": "uuid",
        "last": "uuid",
        "report_id": "text",
        "created_at": "timestamptz",
        "recorded_at": "bigint",
    },
)

_STORED = """
    SELECT o.id, o.state, o.dispatched, o.reached, o.registered_at, o.dispatched_at, o.reported_at, o.expires_at,
        o.cause
    FROM {rows} JOIN device_operations o ON o.id = rows.id
"""

LOCK = Statement(
    f"{_STORED} ORDER BY o.id {{for_update}}",
    rows={"id": "uuid"},
    returns={
        "id": Uuid,
        "state": SmallInteger,
        "dispatched": Boolean,
        "reached": Text,
        "registered_at": BigInteger,
        "dispatched_at": BigInteger,
        "reported_at": BigInteger,
        "expires_at": BigInteger,
        "cause": Text,
    },
)

# The same without waiting: rows locked by other transactions are skipped.
LOCK_SKIP_LOCKED = Statement(
    f"{_STORED} ORDER BY o.id {{for_update_skip_locked}}",
    rows=LOCK.rows,
    returns=LOCK.returns,
)

# The same as `LOCK`, without locks.
PEEK = Statement(_STORED, rows=LOCK.rows, returns=LOCK.returns)

# What is stored of reports (by device operation and id) and of operations (by id alone).
KNOWN = Statement(
    """
    WITH asked AS (SELECT rows.device_operation_id, rows.report_id FROM {rows})
    SELECT asked.device_operation_id, asked.report_id, NULL AS dead_letter_id, NULL AS operation_type, a.state,
        NULL AS timeouts, CAST(NULL AS bigint) AS deadline, CAST(NULL AS bigint) AS schedule_end,
        CAST(NULL AS bigint) AS clock
    FROM asked {its_report}
    UNION ALL
    SELECT asked.device_operation_id, asked.report_id, d.id, NULL, CASE WHEN d.status = 'discarded' THEN 0 END,
        NULL, NULL, NULL, NULL
    FROM asked {its_dead_letters}
    UNION ALL
    SELECT operations.id, NULL, NULL, operations.operation_type, NULL, operations.timeouts, operations.deadline,
        operations.schedule_end, {clock}
    FROM asked JOIN operations ON operations.id = device_operation_id WHERE report_id IS NULL
    """,
    rows={"device_operation_id": "uuid", "report_id": "text"},
    returns={
        "device_operation_id": Uuid,
        "report_id": Text,
        "dead_letter_id": BigInteger,
        "operation_type": Text,
        "state": SmallInteger,
        "timeouts": Text,
        "deadline": BigInteger,
        "schedule_end": BigInteger,
        "clock": BigInteger,
    },
)

WITHDRAW_DEVICE_OPERATIONS = Statement(
    "DELETE FROM device_operations WHERE id IN (SELECT rows.id FROM {rows})", rows={"id": "uuid"}
)

MOVE = Statement(
    """
    UPDATE device_operations
    SET state = rows.state, dispatched = rows.dispatched,
        code = CASE WHEN rows.reason IS NULL THEN device_operations.code ELSE rows.code END,
        service_id = CASE WHEN rows.reason IS NULL THEN device_operations.service_id ELSE rows.service_id END,
        cause = CASE WHEN rows.reason IS NULL THEN device_operations.cause ELSE rows.cause END,
        reason = COALESCE(rows.reason, device_operations.reason), reached = rows.reached, updated_at = :updated_at,
        dispatched_at = CASE WHEN rows.dispatched AND NOT device_operations.dispatched THEN :clock
            ELSE device_operations.dispatched_at END,
        reported_at = CASE WHEN rows.is_silent THEN device_operations.reported_at ELSE :clock END,
        expires_at = rows.expires_at
    FROM {rows} WHERE device_operations.id = rows.id
    """,
    rows={
        "id": "uuid",
        "state": "smallint",
        "dispatched": "boolean",
        "reason": "text",
        "code": "text",
        "service_id": "text",
        "cause": "text",
        "reached": "text",
        "expires_at": "bigint",
        "is_silent": "boolean",
    },
)

# Of rows that are locked, or that no other transaction can see.
ARM = Statement(
    """
    UPDATE device_operations SET expires_at = rows.expires_at, reported_at = rows.reported_at
    FROM {rows} WHERE device_operations.id = rows.id
    """,
    rows={"id": "uuid", "expires_at": "bigint", "reported_at": "bigint"},
)

RECORD = Statement(
    """
    INSERT INTO device_operation_activity
        (device_operation_id, report_id, state, verdict, created_at, service_id, reason, recorded_at, note, code)
    SELECT rows.device_operation_id, rows.report_id, rows.state, rows.verdict, rows.created_at, rows.service_id,
        rows.reason, rows.recorded_at, rows.note, rows.code
    FROM {rows}
    """,
    rows={
        "device_operation_id": "uuid",
        "report_id": "text",
        "state": "smallint",
        "verdict": "text",
        "created_at": "timestamptz",
        "service_id": "text",
        "reason": "text",
        "recorded_at": "bigint",
        "note": "text",
        "code": "text",
    },
    copied_into="device_operation_activity",
)
