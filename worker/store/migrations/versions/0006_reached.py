"""What documents show of a device operation's history stands in its own row; history has our time of receipt.

So a document costs the same however often a device repeats itself, pruning the history does not shorten it, and
for how long history is kept does not go by senders' clocks.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

YEAR_1 = 62_135_596_800
"""Seconds from the year 1 to 1970."""
ENTRY = {
    "postgresql": "state || '=' || "
    "lpad(to_hex(CAST(extract(epoch FROM at) * 1000000 AS bigint) + {offset}), 15, '0')",
    "sqlite": "state || '=' || "
    "printf('%015x', CAST(strftime('%s', substr(at, 1, 19)) AS INTEGER) * 1000000"
    " + CAST(substr(at, 21) AS INTEGER) + {offset})",  # strftime rounds what comes after the seconds
}
"""A state and the microseconds from the year 1 to the time at which it was reached."""
AGGREGATE = {"postgresql": "string_agg({entry}, '')", "sqlite": "group_concat({entry}, '')"}


def upgrade() -> None:
    """Apply."""
    dialect = op.get_bind().dialect.name
    comment = "states and their times"
    op.add_column(
        "device_operations", sa.Column("reached", sa.Text(), nullable=False, server_default="", comment=comment)
    )
    comment = "by our clock, in seconds since 1970; NULL before schema 0006"
    op.add_column("device_operation_activity", sa.Column("recorded_at", sa.BigInteger(), comment=comment))
    comment = "what of the report could not be read, and was left out"
    op.add_column("device_operation_activity", sa.Column("note", sa.Text(), comment=comment))
    reached = AGGREGATE[dialect].format(entry=ENTRY[dialect].format(offset=YEAR_1 * 1_000_000))
    op.execute(
        f"""
        UPDATE device_operations SET reached = history.reached
        FROM (
            SELECT device_operation_id, {reached} AS reached
            FROM (
                SELECT device_operation_id, state, min(created_at) AS at
                FROM device_operation_activity GROUP BY device_operation_id, state
            ) AS earliest
            GROUP BY device_operation_id
        ) AS history
        WHERE history.device_operation_id = device_operations.id
        """  # noqa: S608  # our constants
    )
