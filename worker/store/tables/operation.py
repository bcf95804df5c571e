"""Operations: their states and counters, and what is counted and remembered of them."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, SmallInteger, Table, Text, Uuid

from statemachine import Counters
from worker.store.tables.columns import Key, RowId, UtcDateTime, metadata

operations = Table(
    "operations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("operation_type", Text, comment="NULL until a report or an announcement names it"),
    Column("state", Key, nullable=False),
    Column("expected_device_count", Integer, comment="as announced; NULL if not"),
    Column("schedule_type", Text),
    Column("schedule_args", JSON),
    Column("operation_device_query", JSON),
    Column("arguments", JSON),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Uuid),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("updated_by", Uuid),
    Column("timeouts", Text, comment="as announced, JSON: seconds by kind"),
    Column("deadline", BigInteger, comment="as announced, in milliseconds since 1970"),
    Column("schedule_end", BigInteger, comment="of schedule_args, in milliseconds since 1970"),
    Column("abort", Text, comment="as announced, JSON"),
    Column("tripped", Text, comment="JSON: when, and with which numbers, the abort threshold was crossed"),
    Column("sequence", BigInteger, nullable=False, server_default="0", comment="of its last change that was told"),
    # What settled lately; `operation_minutes` has the rest. By the database's clock, since 1970.
    Column("minute", BigInteger, nullable=False, server_default="0", comment="in which one settled last"),
    Column("minute_settled", BigInteger, nullable=False, server_default="0", comment="in this minute"),
    Column(
        "minute_before",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="that the last update ended, else 0",
    ),
    Column("minute_before_settled", BigInteger, nullable=False, server_default="0"),
    Column("moved_at", BigInteger, nullable=False, server_default="0", comment="in milliseconds"),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in Counters._fields),
    Index("operations_by_creation", "state", "created_at", "id"),
    Index("operations_by_update", "state", "updated_at", "id"),
)

operation_activity = Table(
    "operation_activity",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("operation_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("operation_activity_of_operation", "operation_id", "id"),
)

# Keys of accepted announcements and cancellations: a second one with the same key has no effect.
announcements = Table(
    "announcements",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("message_id", Key, primary_key=True),
    sqlite_with_rowid=False,
)

# How many device operations settled in each minute: a row for an hour, of an operation in which any did.
operation_minutes = Table(
    "operation_minutes",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="since 1970"),
    Column("settled", Text, nullable=False, comment="minutes of the hour and numbers, as in `0=12 1=7`"),
)

# What is left to do for operations by transactions of their own; `version` counts how often it was begun.
operation_tasks = Table(
    "operation_tasks",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("task", Key, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

# Device operations that did not succeed, counted by cause (`worker.model.causes`).
reason_groups = Table(
    "reason_groups",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("state", SmallInteger, primary_key=True, autoincrement=False),
    Column("cause", Key, primary_key=True),
    Column("devices", BigInteger, nullable=False, comment="number of device operations"),
    Column("code", Text),
    Column("reason", Text, nullable=False, comment="masked"),
    Column("example", Text, nullable=False, comment="the reason of one of its reports"),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)
