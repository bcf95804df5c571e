"""Ids of device operations that begin as their operation's does, so that these lie side by side in keys.

What had an id of old is written anew, in its new order. History gets the name that it has in documents: a worker
of an older version, which would go on with the ids of old, fails where it was left running.
"""

from collections.abc import Sequence

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NEW_ID = {
    "postgresql": "CAST(left(CAST({operation} AS text), 8) || substr(CAST({old} AS text), 9, 6) || '8' || "
    "substr(CAST({old} AS text), 16) AS uuid)",
    "sqlite": "substr({operation}, 1, 8) || substr({old}, 9, 4) || '8' || substr({old}, 14)",
}
"""A UUIDv8, of the UUIDv5 that was the id and the first four bytes of the operation's."""


def upgrade() -> None:
    """Apply."""
    dialect = op.get_bind().dialect.name
    new_id = NEW_ID[dialect].format(operation="o.operation_id", old="o.id")
    _rewrite(
        "activity",
        f"CASE WHEN o.id IS NULL THEN r.device_operation_id ELSE {new_id} END",
        ["device_operation_id", "report_id", "state", "verdict", "created_at", "service_id", "reason"],
        "LEFT JOIN device_operations o ON o.id = r.device_operation_id",
    )
    _rewrite(
        "device_operations",
        NEW_ID[dialect].format(operation="r.operation_id", old="r.id"),
        ["id", "operation_id", "device_id", "state", "dispatched", "reason", "created_at", "updated_at"],
    )
    new_id = NEW_ID[dialect].format(operation="operation_id", old="device_operation_id")
    op.execute(
        f"UPDATE dead_letters SET device_operation_id = {new_id} "  # noqa: S608  # our constants, here and below
        "WHERE device_operation_id IS NOT NULL AND operation_id IS NOT NULL"
    )
    op.rename_table("activity", "device_operation_activity")
    if dialect == "postgresql":
        op.execute("ALTER INDEX activity_pkey RENAME TO device_operation_activity_pkey")
        comment = "of the pair below; begins as the operation''s id does"
        op.execute(f"COMMENT ON COLUMN device_operations.id IS '{comment}'")


def _rewrite(table: str, new_id: str, columns: Sequence[str], join: str = "") -> None:
    """Give the rows `r` of a table a new id, its first column. The table stays, with its grants and options."""
    id_, *others = columns
    kept = ", ".join(f"r.{name}" for name in others)
    rows = f"SELECT {new_id} AS {id_}, {kept} FROM {table} r {join}"  # noqa: S608
    op.execute(f"CREATE TABLE rewritten AS {rows}")  # no temporary one: that takes a right of its own
    op.execute(f"TRUNCATE {table}" if op.get_bind().dialect.name == "postgresql" else f"DELETE FROM {table}")  # noqa: S608
    names = ", ".join(columns)
    op.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM rewritten ORDER BY 1, 2")  # noqa: S608
    op.execute("DROP TABLE rewritten")
