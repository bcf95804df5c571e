"""Dead letters that people work with: their history, corrected copies, and indexes to find and prune them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "dead_letters",
        sa.Column(
            "body_removed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when retention emptied the body",
        ),
    )
    op.add_column(
        "dead_letters",
        sa.Column(
            "corrects",
            sa.BigInteger(),
            nullable=True,
            comment="the dead letter that this one is the corrected copy of",
        ),
    )
    op.create_index("dead_letters_of_operation", "dead_letters", ["operation_id", "id"])
    op.create_index(
        "dead_letters_parked",
        "dead_letters",
        ["operation_id", "received_at"],
        postgresql_where=sa.text("status = 'open' AND reason = 'unknown_device_operation'"),
        sqlite_where=sa.text("status = 'open' AND reason = 'unknown_device_operation'"),
    )
    op.create_index(
        "dead_letters_closed",
        "dead_letters",
        ["resolved_at"],
        postgresql_where=sa.text("status <> 'open'"),
        sqlite_where=sa.text("status <> 'open'"),
    )
    op.create_table(
        "dead_letter_history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dead_letter_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True, comment="NULL: the worker by itself"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("dead_letter_history_of_dead_letter", "dead_letter_history", ["dead_letter_id", "id"])
