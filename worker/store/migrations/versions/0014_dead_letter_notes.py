"""Notes on groups of dead letters."""

import sqlalchemy as sa
from alembic import op

from worker.store.tables import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "dead_letter_notes",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column(
            "filter",
            sa.Text().with_variant(sa.Text(collation="C"), "postgresql"),
            nullable=False,
            comment="of the group, as a query string",
        ),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False, comment="name of the token"),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_index("dead_letter_notes_of_filter", "dead_letter_notes", ["filter", "id"])
