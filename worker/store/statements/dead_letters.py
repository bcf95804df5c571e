"""The SQL of a batch about dead letters and their history."""

from sqlalchemy import BigInteger, Integer, Text, Uuid

from worker.model.outcomes import AT_ONCE, Action, Reason, Status
from worker.store.bulk import POSTGRESQL, Statement
from worker.store.rows import HistoryEntry, SettledDeadLetter
from worker.store.tables import UtcDateTime, dead_letters

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

# Of operations, only those whose device operations are registered.
LOCK_PARKED = Statement(
    f"""
    SELECT o.id, o.operation_id, o.device_operation_id,
        length(o.body) + length(CAST(o.headers AS text)) AS size
    FROM {{rows}} JOIN dead_letters o ON o.operation_id = rows.operation_id
    JOIN device_operations ON device_operations.id = o.device_operation_id
    WHERE o.status = '{Status.OPEN}' AND o.reason = '{Reason.UNKNOWN_DEVICE_OPERATION}'
    ORDER BY o.id {{for_update}}
    """,
    rows={"operation_id": "uuid"},
    returns=PARKED.returns,
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
