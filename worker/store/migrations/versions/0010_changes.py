"""Changes that others are told: the outbox, the log in which they are numbered, and how far each reader is."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    sequence = sa.Column(
        "sequence", sa.BigInteger(), nullable=False, server_default="0", comment="of its last change that was told"
    )
    op.add_column("operations", sequence)
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def told() -> list[sa.Column[object]]:
        return [
            sa.Column("id", sa.Uuid(), nullable=False, comment="of the message, the same in each copy"),
            sa.Column("aggregatetype", sa.Text(), nullable=False),
            sa.Column("aggregateid", key, nullable=False),
            sa.Column("type", sa.Text(), nullable=False),
            sa.Column("payload", sa.Text(), nullable=False, comment="JSON"),
            sa.Column("routing_key", sa.Text(), nullable=False),
            sa.Column("sequence", sa.BigInteger(), comment="of an operation's changes"),
            sa.Column("recorded_at", sa.BigInteger(), nullable=False, comment="in milliseconds since 1970"),
        ]

    op.create_table("outbox", sa.Column("position", row_id, primary_key=True, autoincrement=True), *told())
    op.create_table("changes", sa.Column("position", row_id, primary_key=True, autoincrement=False), *told())
    op.create_index("changes_of_operation", "changes", ["aggregateid", "position"])
    cursors = op.create_table(
        "change_cursors",
        sa.Column("name", key, primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Uuid(), comment="the worker that publishes"),
        sa.Column("held_until", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("dropped", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.bulk_insert(cursors, [{"name": "log", "position": 0}])
