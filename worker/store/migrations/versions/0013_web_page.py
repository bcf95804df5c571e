"""The web page: who is signed in, the key of its cookies, and who did what."""

import sqlalchemy as sa
from alembic import op

from worker.store.tables import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "page_keys",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="signs cookies"),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "page_sessions",
        sa.Column("id", key, primary_key=True, comment="SHA-256 of what the cookie has"),
        sa.Column("token_name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False, comment="as in the settings; another one ends it"),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "audit_log",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False, comment="name of the token"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
