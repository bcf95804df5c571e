"""Timeouts, abort thresholds, and codes of reports.

Device operations from before count as registered, and last reported, at the moment of the migration, as the
database's clock was not kept. No row is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NOW = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
}
CAN_EXPIRE = sa.text("expires_at IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    dialect = op.get_bind().dialect.name
    now = str(op.get_bind().execute(sa.text(f"SELECT {NOW[dialect]}")).scalar_one())
    for name, type_, comment in (
        ("timeouts", sa.Text(), "as announced, JSON: seconds by kind"),
        ("deadline", sa.BigInteger(), "as announced, in milliseconds since 1970"),
        ("schedule_end", sa.BigInteger(), "of schedule_args, in milliseconds since 1970"),
        ("abort", sa.Text(), "as announced, JSON"),
        ("tripped", sa.Text(), "JSON: when, and with which numbers, the abort threshold was crossed"),
    ):
        op.add_column("operations", sa.Column(name, type_, comment=comment))
    comment = "of the report that moved it to its state"
    op.add_column("device_operations", sa.Column("code", sa.Text(), comment=comment))
    op.add_column("device_operation_activity", sa.Column("code", sa.Text()))
    for name, comment in (("registered_at", ""), ("reported_at", "when a report was last accepted")):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default=now, comment=comment or None)
        op.add_column("device_operations", column)
        if dialect == "postgresql":
            # For workers of the version before, which go on and know nothing of it. On SQLite, which cannot change
            # a default, what they register counts from the migration too.
            op.alter_column("device_operations", name, server_default=sa.text(NOW[dialect]))
    for name, comment in (
        ("dispatched_at", "NULL if not dispatched, or before schema 0009"),
        ("expires_at", "when to look whether it is over; NULL if nothing can be"),
    ):
        op.add_column("device_operations", sa.Column(name, sa.BigInteger(), comment=comment))
    op.create_index(
        "device_operations_due",
        "device_operations",
        ["expires_at", "operation_id"],
        postgresql_where=CAN_EXPIRE,
        sqlite_where=CAN_EXPIRE,
    )
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "operation_tasks",
        sa.Column("operation_id", sa.Uuid(), primary_key=True),
        sa.Column("task", key, primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "timeout_defaults",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column(
            "since",
            sa.BigInteger(),
            nullable=False,
            comment="by the database's clock, in milliseconds since 1970",
        ),
    )
    op.create_table(
        "consumers",
        sa.Column("worker_id", sa.Uuid(), primary_key=True),
        sa.Column("queue", key, primary_key=True),
        sa.Column("topology_prefix", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "settled_until", sa.BigInteger(), nullable=False, comment="what was delivered before is settled"
        ),
        sa.Column(
            "processed_until", sa.BigInteger(), nullable=False, comment="what was published before is processed"
        ),
    )
