"""Why device operations did not succeed, who reported them, and how many settled in each minute.

Device operations get the service and the cause of their state from what is stored, and groups are counted: this
rewrites every row of `device_operations` once. Minutes begin with the migration.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from statemachine import State
from worker.model.causes import GROUPED, Group, GroupKey, Groups, cause
from worker.store.tables import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PORTION = 20_000
"""Device operations that are read at a time."""
REPORTERS = "SELECT device_operation_id, state, min(service_id) AS service_id FROM device_operation_activity"


def upgrade() -> None:
    """Apply."""
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    for name, comment in (
        ("minute", "in which one settled last"),
        ("minute_settled", "in this minute"),
        ("minute_before", "that the last update ended, else 0"),
        ("minute_before_settled", None),
        ("moved_at", "in milliseconds"),
    ):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0", comment=comment)
        op.add_column("operations", column)
    op.create_table(
        "operation_minutes",
        sa.Column("operation_id", sa.Uuid(), primary_key=True),
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False, comment="since 1970"),
        sa.Column(
            "settled", sa.Text(), nullable=False, comment="minutes of the hour and numbers, as in `0=12 1=7`"
        ),
    )
    groups = op.create_table(
        "reason_groups",
        sa.Column("operation_id", sa.Uuid(), primary_key=True),
        sa.Column("state", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("cause", key, primary_key=True),
        sa.Column("devices", sa.BigInteger(), nullable=False, comment="number of device operations"),
        sa.Column("code", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False, comment="masked"),
        sa.Column("example", sa.Text(), nullable=False, comment="the reason of one of its reports"),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sqlite_with_rowid=False,
    )
    comment = "of the same report; NULL if an announcement registered it"
    op.add_column("device_operations", sa.Column("service_id", key, comment=comment))
    comment = "its code, or one made of its reason if it did not succeed"
    op.add_column("device_operations", sa.Column("cause", key, comment=comment))
    connection = op.get_bind()
    found = _group(connection)
    if found:
        connection.execute(groups.insert(), found)
    _fill(connection)
    for name, indexed in (("service", "service_id"), ("cause", "cause")):
        where = sa.text(f"{indexed} IS NOT NULL")
        op.create_index(
            f"device_operations_by_{name}",
            "device_operations",
            ["operation_id", "state", indexed, "updated_at", "id"],
            postgresql_where=where,
            sqlite_where=where,
        )


def _group(connection: sa.Connection) -> list[dict[str, Any]]:
    """Write the causes to a table of their own, and count the groups."""
    # No temporary one, to which the user may have no right.
    columns = sa.Column("id", sa.Uuid(), primary_key=True), sa.Column("cause", sa.Text(), nullable=False)
    inserting = sa.insert(op.create_table("migrated_causes", *columns))
    groups = Groups()
    for rows in _portions(connection):
        causes = []
        for row in rows:
            state = State(row.state)
            if (each := cause(state, row.code, row.reason)) is None:
                continue
            causes.append({"id": row.id, "cause": each})
            if state in GROUPED:
                groups.add(GroupKey(row.operation_id, state, each), Group.of(row.code, row.reason, row.updated_at))
        if causes:
            connection.execute(inserting, causes)
    return [{**key._asdict(), **group._asdict()} for key, group in groups.changes.items()]


def _portions(connection: sa.Connection) -> Iterator[Any]:
    column = sa.table(
        "device_operations",
        sa.column("id", sa.Uuid()),
        sa.column("operation_id", sa.Uuid()),
        sa.column("state", sa.SmallInteger()),
        sa.column("code", sa.Text()),
        sa.column("reason", sa.Text()),
        sa.column("updated_at", UtcDateTime()),
    ).c
    query = sa.select(*column).where(column.state.in_(GROUPED) | column.code.is_not(None)).order_by(column.id)
    after = UUID(int=0)
    while rows := connection.execute(query.where(column.id > after).limit(PORTION)).all():
        yield rows
        after = rows[-1].id


def _fill(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(f"""
            UPDATE device_operations SET service_id = NULLIF(found.service_id, ''), cause = found.cause
            FROM (
                SELECT d.id, a.service_id, c.cause FROM device_operations d
                LEFT JOIN ({REPORTERS} WHERE verdict = 'applied' GROUP BY device_operation_id, state) a
                    ON a.device_operation_id = d.id AND a.state = d.state
                LEFT JOIN migrated_causes c ON c.id = d.id
            ) AS found
            WHERE found.id = device_operations.id
        """)  # noqa: S608  # our constants
    )
    op.drop_table("migrated_causes")
