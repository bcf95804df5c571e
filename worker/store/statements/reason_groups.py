"""The SQL of a batch about groups of device operations by cause."""

from sqlalchemy import SmallInteger, Text, Uuid

from worker.model.causes import MAX_GROUPS, OTHER
from worker.store.bulk import Statement

# Counts where the group exists, or where its operation has room for one more; returns what was counted. Whether a
# group exists is a subquery, as every plan finds it by the key.
COUNT = Statement(
    f"""
    INSERT INTO reason_groups (operation_id, state, cause, devices, code, reason, example, first_at, last_at)
    SELECT operation_id, state, cause, devices, code, reason, example, first_at, last_at
    FROM (
        SELECT found.*, SUM(CASE WHEN is_new THEN 1 ELSE 0 END) OVER (
            PARTITION BY operation_id ORDER BY state, cause ROWS UNBOUNDED PRECEDING
        ) AS place
        FROM (
            SELECT rows.operation_id, rows.state, rows.cause, rows.devices, rows.code, rows.reason, rows.example,
                rows.first_at, rows.last_at,
                rows.cause <> '{OTHER}' AND (
                    SELECT g.devices FROM reason_groups g
                    WHERE g.operation_id = rows.operation_id AND g.state = rows.state AND g.cause = rows.cause
                ) IS NULL AS is_new
            FROM {{rows}}
        ) AS found
    ) AS placed
    WHERE CASE WHEN NOT is_new THEN true WHEN devices <= 0 THEN false ELSE place + (
        SELECT count(*) FROM reason_groups g WHERE g.operation_id = placed.operation_id AND g.cause <> '{OTHER}'
    ) <= {MAX_GROUPS} END
    ORDER BY operation_id, state, cause
    ON CONFLICT (operation_id, state, cause) DO UPDATE
    SET devices = reason_groups.devices + excluded.devices,
        first_at = CASE WHEN excluded.first_at < reason_groups.first_at THEN excluded.first_at
            ELSE reason_groups.first_at END,
        last_at = CASE WHEN excluded.last_at > reason_groups.last_at THEN excluded.last_at
            ELSE reason_groups.last_at END
    RETURNING operation_id, state, cause
    """,
    rows={
        "operation_id": "uuid",
        "state": "smallint",
        "cause": "text",
        "devices": "bigint",
        "code": "text",
        "reason": "text",
        "example": "text",
        "first_at": "timestamptz",
        "last_at": "timestamptz",
    },
    returns={"operation_id": Uuid, "state": SmallInteger, "cause": Text},
)
