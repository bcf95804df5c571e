"""Text in keys and indexes is compared byte by byte, so that no upgrade of a library changes its order.

PostgreSQL builds the indexes of these columns anew, and leaves the rows where they are.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

KEYS = {
    "announcements": "message_id",
    "dead_letters": "report_id",
    "device_operation_activity": "report_id",
    "operations": "state",
}


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":  # SQLite compares bytes
        for table, column in KEYS.items():
            op.execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE text COLLATE "C"')
