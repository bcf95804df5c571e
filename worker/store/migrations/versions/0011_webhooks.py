"""Webhooks, and what is owed to each."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "webhooks",
        sa.Column("name", key, primary_key=True),
        sa.Column("types", sa.Text(), nullable=False, comment="of the changes that it takes"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="up to which it is owed what it takes"),
        sa.Column("seen_at", sa.BigInteger(), nullable=False, comment="when a worker last had it in its settings"),
        sa.Column("off_at", sa.BigInteger(), comment="when its receiver switched it off; NULL if it is on"),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0", comment="since the last success"),
        sa.Column("resumes_at", sa.BigInteger(), nullable=False, server_default="0", comment="no attempt before"),
        sa.Column("succeeded_at", sa.BigInteger(), comment="the last time"),
        sa.Column("success_status", sa.SmallInteger()),
        sa.Column("failed_at", sa.BigInteger(), comment="the last time"),
        sa.Column("failure_status", sa.SmallInteger(), comment="NULL without an answer"),
        sa.Column("failure", sa.Text(), comment="why"),
        sa.Column("given_up", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("dropped", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("webhook", key, primary_key=True),
        sa.Column("position", sa.BigInteger(), primary_key=True, comment="in the log"),
        sa.Column("id", sa.Uuid(), nullable=False, comment="of the change, and of the message at each attempt"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False, comment="in milliseconds since 1970"),
        sa.Column("attempts", sa.SmallInteger(), nullable=False, server_default="0", comment="that failed"),
        sa.Column(
            "due_at", sa.BigInteger(), nullable=False, comment="of the next attempt; or when the lease ends"
        ),
        sa.Column("lease", sa.Uuid(), comment="of the attempt that is made now"),
    )
    op.create_index("webhook_deliveries_due", "webhook_deliveries", ["webhook", "due_at", "position"])
    is_leased = sa.text("lease IS NOT NULL")
    op.create_index(
        "webhook_deliveries_leased",
        "webhook_deliveries",
        ["webhook"],
        postgresql_where=is_leased,
        sqlite_where=is_leased,
    )
