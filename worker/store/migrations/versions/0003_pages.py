"""Pages that cost the same at any size: device operations counted by state, and indexes for every order."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATES = {
    10: "created",
    20: "initiated",
    30: "dispatched",
    40: "processing",
    50: "success",
    60: "failure",
    70: "cancelled",
    80: "timeout",
    90: "completed",
}
COUNTERS = (
    "resolved_device_count",
    "dispatched_device_count",
    "dispatch_failed_count",
    "failed_device_count",
    "success_device_count",
)


def upgrade() -> None:
    """Apply."""
    op.drop_index("operations_by_creation", "operations")
    op.drop_index("device_operations_of_operation", "device_operations")
    for name in STATES.values():
        op.add_column("operations", sa.Column(f"in_{name}", sa.BigInteger(), nullable=False, server_default="0"))
    counting = ", ".join(f"count(*) FILTER (WHERE state = {code}) AS in_{name}" for code, name in STATES.items())
    op.execute(
        f"UPDATE operations SET {', '.join(f'in_{name} = counted.in_{name}' for name in STATES.values())} "  # noqa: S608  # our constants
        f"FROM (SELECT operation_id, {counting} FROM device_operations GROUP BY operation_id) AS counted "
        "WHERE counted.operation_id = operations.id"
    )
    with op.batch_alter_table("operations") as operations:
        operations.drop_column("settled_device_count")
        for name in COUNTERS:
            operations.alter_column(name, existing_type=sa.BigInteger(), server_default="0")
    for table, scope in (("operations", []), ("device_operations", ["operation_id"])):
        op.create_index(f"{table}_by_creation", table, [*scope, "state", "created_at", "id"])
        op.create_index(f"{table}_by_update", table, [*scope, "state", "updated_at", "id"])
    op.create_index("device_operations_of_device", "device_operations", ["device_id", "operation_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE device_operations RESET (fillfactor)")
