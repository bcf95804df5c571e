"""Workers that consume announce themselves, to share partitions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("topology_prefix", sa.Text(), nullable=False),
        sa.Column("partitions", sa.SmallInteger(), nullable=False, comment="how many it declares"),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, comment="by the server's clock"),
    )
