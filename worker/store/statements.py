"""The SQL of a batch, for both databases."""

from sqlalchemy import BigInteger, Boolean, Integer, SmallInteger, Text, Uuid

from statemachine import Counters, State
from worker.model.outcomes import AT_ONCE, Action, Reason, Status
from worker.store.bulk import POSTGRESQL, Statement
from worker.store.rows import HistoryEntry, SettledDeadLetter
from worker.store.tables import UtcDateTime, dead_letters

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

CLAIM = Statement(
    f"""
    INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at,
        reached, registered_at, reported_at, expires_at)
    SELECT rows.id, rows.operation_id, rows.device_id, {State.CREATED:d}, false, '', rows.created_at, :updated_at,
        rows.reached, :clock, :clock, rows.expires_at
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
        "expires_at": "bigint",
    },
    returns={"id": Uuid},
)

_STORED = """
    SELECT o.id, o.state, o.dispatched, o.reached, o.registered_at, o.dispatched_at, o.reported_at, o.expires_at
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

KEPT = Statement(
    "SELECT rows.fingerprint FROM {rows} JOIN dead_letters d ON d.fingerprint = rows.fingerprint",
    rows={"fingerprint": "uuid"},
    returns={"fingerprint": Uuid},
)

DISCARDED = Statement(
    f"""
    SELECT rows.fingerprint FROM {{rows}} JOIN dead_letters d ON d.fingerprint = rows.fingerprint
    WHERE d.status = '{Status.DISCARDED}'
    """,
    rows=KEPT.rows,
    returns=KEPT.returns,
)

ANNOUNCED = Statement(
    """
    SELECT a.operation_id, a.message_id FROM {rows}
    JOIN announcements a ON a.operation_id = rows.operation_id AND a.message_id = rows.message_id
    """,
    rows={"operation_id": "uuid", "message_id": "text"},
    returns={"operation_id": Uuid, "message_id": Text},
)

_DEAD_LETTER = {column.name: column.type for column in dead_letters.columns}
_TO_KEEP = {
    name: "text" if isinstance(type_, Text) else type_.compile(POSTGRESQL)  # an array has no collation
    for name, type_ in _DEAD_LETTER.items()
    if name != "id"
}

KEEP = Statement(
    f"""
    INSERT INTO dead_letters ({", ".join(_TO_KEEP)})
    SELECT {", ".join(f"rows.{name}" for name in _TO_KEEP)} FROM {{rows}}
    ORDER BY rows.number
    ON CONFLICT DO NOTHING
    RETURNING fingerprint, id
    """,
    rows={"number": "integer", **_TO_KEEP},
    returns={"fingerprint": Uuid, "id": BigInteger},
)

_IS_PARKED = f"d.status = '{Status.OPEN}' AND d.reason = '{Reason.UNKNOWN_DEVICE_OPERATION}'"

PARKED = Statement(
    f"""
    SELECT d.id, d.operation_id, d.device_operation_id, length(d.body) + length(CAST(d.headers AS text)) AS size
    FROM {{rows}} {{their_dead_letters}} WHERE {_IS_PARKED}
    ORDER BY d.device_operation_id, d.id LIMIT :limit
    """,
    rows={"device_operation_id": "uuid"},
    returns={"id": BigInteger, "operation_id": Uuid, "device_operation_id": Uuid, "size": BigInteger},
)

WEIGH_PARKED = Statement(
    f"""
    SELECT d.device_operation_id, count(*) AS reports,
        CAST(sum(length(d.body) + length(CAST(d.headers AS text))) AS bigint) AS size
    FROM {{rows}} {{their_dead_letters}} WHERE {_IS_PARKED}
    GROUP BY d.device_operation_id
    """,
    rows=PARKED.rows,
    returns={"device_operation_id": Uuid, "reports": BigInteger, "size": BigInteger},
)

READ_PARKED = Statement(
    f"""
    SELECT {", ".join(f"d.{name}" for name in _DEAD_LETTER)}
    FROM {{rows}} JOIN dead_letters d ON d.id = rows.id WHERE {_IS_PARKED}
    ORDER BY d.id
    """,
    rows={"id": "bigint"},
    returns=_DEAD_LETTER,
)

LOCK_DEAD_LETTERS = Statement(
    """
    SELECT o.id, o.status, o.attempts, o.body_removed_at FROM {rows} JOIN dead_letters o ON o.id = rows.id
    ORDER BY o.id {for_update}
    """,
    rows={"id": "bigint"},
    returns={"id": BigInteger, "status": Text, "attempts": Integer, "body_removed_at": UtcDateTime},
)

WITHDRAW_DEVICE_OPERATIONS = Statement(
    "DELETE FROM device_operations WHERE id IN (SELECT rows.id FROM {rows})", rows={"id": "uuid"}
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

MOVE = Statement(
    """
    UPDATE device_operations
    SET state = rows.state, dispatched = rows.dispatched,
        code = CASE WHEN rows.reason IS NULL THEN device_operations.code ELSE rows.code END,
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

# The message may be parsed for the first time, if it was malformed or undeliverable before: the columns of the
# report are then stored. The fingerprint becomes that of the report, so that the same report adds no row; or the
# spare one, if another row already has it.
SETTLE = Statement(
    """
    UPDATE dead_letters
    SET status = rows.status, resolved_at = rows.resolved_at, attempts = attempts + 1,
        reason = COALESCE(rows.reason, dead_letters.reason),
        detail = COALESCE(rows.detail, dead_letters.detail),
        operation_id = COALESCE(rows.operation_id, dead_letters.operation_id),
        device_id = COALESCE(rows.device_id, dead_letters.device_id),
        service_id = COALESCE(rows.service_id, dead_letters.service_id),
        fingerprint = CASE WHEN rows.fingerprint IS NULL THEN dead_letters.fingerprint
            WHEN EXISTS (SELECT 1 FROM dead_letters d WHERE d.fingerprint = rows.fingerprint AND d.id <> rows.id)
            THEN rows.spare ELSE rows.fingerprint END,
        device_operation_id = CASE WHEN rows.fingerprint IS NULL THEN dead_letters.device_operation_id
            ELSE rows.device_operation_id END,
        report_id = COALESCE(rows.report_id, dead_letters.report_id)
    FROM {rows} WHERE dead_letters.id = rows.id
    """,
    rows={
        "id": "bigint",
        "status": "text",
        "resolved_at": "timestamptz",
        "reason": "text",
        "detail": "text",
        "fingerprint": "uuid",
        "spare": "uuid",
        "operation_id": "uuid",
        "device_id": "uuid",
        "service_id": "text",
        "device_operation_id": "uuid",
        "report_id": "text",
    },
    row_type=SettledDeadLetter,
)

BEGIN_HISTORY = Statement(
    f"""
    WITH d AS (
        SELECT dead_letters.* FROM {{rows}} JOIN dead_letters ON dead_letters.id = rows.id
        WHERE NOT EXISTS (SELECT 1 FROM dead_letter_history h WHERE h.dead_letter_id = rows.id)
    )
    INSERT INTO dead_letter_history (dead_letter_id, at, action, outcome, detail)
    SELECT d.id, d.received_at, '{Action.RECEIVED}', d.reason, d.detail FROM d
    UNION ALL
    SELECT d.id, d.resolved_at, '{Action.RELEASED}', '', '{AT_ONCE}' FROM d WHERE d.status = '{Status.RESOLVED}'
    """,
    rows={"id": "bigint"},
)

NOTE_HISTORY = Statement(
    """
    INSERT INTO dead_letter_history (dead_letter_id, at, actor, action, outcome, detail)
    SELECT rows.id, rows.at, rows.actor, rows.action, rows.outcome, rows.detail FROM {rows}
    """,
    rows={
        "id": "bigint",
        "at": "timestamptz",
        "actor": "text",
        "action": "text",
        "outcome": "text",
        "detail": "text",
    },
    row_type=HistoryEntry,
)

# The operations are locked in order of their ids before the first one is updated.
COUNT = Statement(
    f"""
    UPDATE operations
    SET updated_at = :updated_at,
        {", ".join(f"{name} = operations.{name} + rows.{name}" for name in Counters._fields)}
    FROM (
        SELECT o.id, {", ".join(f"rows.{name}" for name in Counters._fields)}
        FROM {{rows}} JOIN operations o ON o.id = rows.id ORDER BY o.id {{for_update}}
    ) AS rows
    WHERE operations.id = rows.id
    RETURNING operations.id, operation_type, state, expected_device_count, timeouts, deadline, schedule_end, abort,
        tripped, {", ".join(f"operations.{name}" for name in Counters._fields)}, {{notify}} AS told
    """,
    rows={"id": "uuid", **dict.fromkeys(Counters._fields, "bigint")},
    returns={
        "id": Uuid,
        "operation_type": Text,
        "state": Text,
        "expected_device_count": Integer,
        "timeouts": Text,
        "deadline": BigInteger,
        "schedule_end": BigInteger,
        "abort": Text,
        "tripped": Text,
        **dict.fromkeys(Counters._fields, BigInteger),
        "told": Text,
    },
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
