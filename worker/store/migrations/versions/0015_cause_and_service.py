"""The service as a column of the index by cause: counting by both is an index-only scan."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    where = sa.text("cause IS NOT NULL")
    op.drop_index("device_operations_by_cause", "device_operations")
    op.create_index(
        "device_operations_by_cause",
        "device_operations",
        ["operation_id", "state", "cause", "updated_at", "id", "service_id"],
        postgresql_where=where,
        sqlite_where=where,
    )
