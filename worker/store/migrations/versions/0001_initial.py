"""The first schema: operations, device operations, their histories, dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "activity",
        sa.Column("device_operation_id", sa.Uuid(), nullable=False),
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device_operation_id", "report_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "announcements",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id", "message_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("fingerprint", sa.Uuid(), nullable=False, comment="the same message makes no second row"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("device_id", sa.Uuid(), nullable=True),
        sa.Column("service_id", sa.Text(), nullable=True),
        sa.Column(
            "device_operation_id",
            sa.Uuid(),
            nullable=True,
            comment="with report_id: the identity of a readable report",
        ),
        sa.Column("report_id", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exchange", sa.Text(), nullable=False),
        sa.Column("routing_key", sa.Text(), nullable=False),
        sa.Column("properties", sa.JSON(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("fingerprint"),
    )
    op.create_index(
        "dead_letters_of_device_operation", "dead_letters", ["device_operation_id", "report_id"], unique=False
    )
    op.create_index(
        "dead_letters_open",
        "dead_letters",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
        sqlite_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "device_operations",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv5 of the pair below"),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("dispatched", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        "device_operations_of_operation",
        "device_operations",
        ["operation_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "operation_activity",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("operation_activity_of_operation", "operation_activity", ["operation_id", "id"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "operation_type",
            sa.Text(),
            nullable=True,
            comment="NULL until a report or an announcement names it",
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expected_device_count", sa.Integer(), nullable=True, comment="as announced; NULL if not"),
        sa.Column("schedule_type", sa.Text(), nullable=True),
        sa.Column("schedule_args", sa.JSON(), nullable=True),
        sa.Column("operation_device_query", sa.JSON(), nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.Uuid(), nullable=True),
        sa.Column("resolved_device_count", sa.BigInteger(), nullable=False),
        sa.Column("dispatched_device_count", sa.BigInteger(), nullable=False),
        sa.Column("dispatch_failed_count", sa.BigInteger(), nullable=False),
        sa.Column("failed_device_count", sa.BigInteger(), nullable=False),
        sa.Column("success_device_count", sa.BigInteger(), nullable=False),
        sa.Column("settled_device_count", sa.BigInteger(), nullable=False, comment="ours: the state needs it"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("operations_by_creation", "operations", ["created_at", "id"], unique=False)
