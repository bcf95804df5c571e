"""Device operations: their states, and each accepted report."""

from sqlalchemy import BigInteger, Boolean, Column, Index, SmallInteger, Table, Text, Uuid, text

from worker.store.tables.columns import Key, UtcDateTime, metadata

_CAN_EXPIRE = text("expires_at IS NOT NULL")

_HAS_CAUSE = text("cause IS NOT NULL")

_HAS_SERVICE = text("service_id IS NOT NULL")

device_operations = Table(
    "device_operations",
    metadata,
    Column("id", Uuid, primary_key=True, comment="of the pair below; begins as the operation's id does"),
    Column("operation_id", Uuid, nullable=False),
    Column("device_id", Uuid, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("dispatched", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column(
        "reached",
        Text,
        nullable=False,
        server_default="",
        comment="states and their times",
    ),
    Column("code", Text, comment="of the report that moved it to its state"),
    Column("service_id", Key, comment="of the same report; NULL if an announcement registered it"),
    Column("cause", Key, comment="its code, or one made of its reason if it did not succeed"),
    # By the database's clock, in milliseconds since 1970.
    Column("registered_at", BigInteger, nullable=False),
    Column("dispatched_at", BigInteger, comment="NULL if not dispatched, or before schema 0009"),
    Column("reported_at", BigInteger, nullable=False, comment="when a report was last accepted"),
    Column("expires_at", BigInteger, comment="when to look whether it is over; NULL if nothing can be"),
    # The state comes first: an order over all states merges a page of each (see `worker.store.pagination`).
    Index("device_operations_by_creation", "operation_id", "state", "created_at", "id"),
    Index("device_operations_by_update", "operation_id", "state", "updated_at", "id"),
    Index(
        "device_operations_by_service",
        *("operation_id", "state", "service_id", "updated_at", "id"),
        postgresql_where=_HAS_SERVICE,
        sqlite_where=_HAS_SERVICE,
    ),
    Index(  # service_id makes both filters together an index-only scan
        "device_operations_by_cause",
        *("operation_id", "state", "cause", "updated_at", "id", "service_id"),
        postgresql_where=_HAS_CAUSE,
        sqlite_where=_HAS_CAUSE,
    ),
    Index("device_operations_of_device", "device_id", "operation_id"),
    Index(
        "device_operations_due",
        "expires_at",
        "operation_id",
        postgresql_where=_CAN_EXPIRE,
        sqlite_where=_CAN_EXPIRE,
    ),
)

# One row for each accepted report (applied, late or repeated). The primary key detects duplicates and clusters a
# device operation's history. `created_at` is the sender's time; retention uses `recorded_at`, an integer, since
# that takes a tenth of the time to send.
activity = Table(
    "device_operation_activity",
    metadata,
    Column("device_operation_id", Uuid, primary_key=True),
    Column("report_id", Key, primary_key=True),
    Column("state", SmallInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("service_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", BigInteger, comment="by our clock, in seconds since 1970; NULL before schema 0006"),
    Column("note", Text, comment="what of the report could not be read, and was left out"),
    Column("code", Text),
    sqlite_with_rowid=False,
)
