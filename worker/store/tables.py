"""The tables for SQLite and PostgreSQL. Times are UTC; ids are UUIDs; states are integer codes."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    text,
)

from statemachine import Counters


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; stored without time zone in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to naive UTC for SQLite."""
        if value is not None and dialect.name == "sqlite":
            return value.astimezone(UTC).replace(tzinfo=None)
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Add the time zone; PostgreSQL's infinities have none either."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

_RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements INTEGER columns only
# Text in keys and indexes has the collation C (byte order), as in SQLite: with another one, an upgrade of the
# C library may change the order, and rows are not found in the index any more.
_Key = Text().with_variant(Text(collation="C"), "postgresql")

# No foreign keys: the processor writes both sides of each in one transaction and nothing deletes a
# referenced row; PostgreSQL would spend about 10 µs on each reference of each report.

operations = Table(
    "operations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("operation_type", Text, comment="NULL until a report or an announcement names it"),
    Column("state", _Key, nullable=False),
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
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in Counters._fields),
    Index("operations_by_creation", "state", "created_at", "id"),
    Index("operations_by_update", "state", "updated_at", "id"),
)

# What is left to do for operations by transactions of their own; `version` counts how often it was begun.
operation_tasks = Table(
    "operation_tasks",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("task", _Key, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

# How far each worker has come with each queue, in milliseconds since 1970 by the database's clock.
consumers = Table(
    "consumers",
    metadata,
    Column("worker_id", Uuid, primary_key=True),
    Column("queue", _Key, primary_key=True),
    Column("topology_prefix", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("settled_until", BigInteger, nullable=False, comment="what was delivered before is settled"),
    Column("processed_until", BigInteger, nullable=False, comment="what was published before is processed"),
)

# The settings for timeouts that the device operations were armed with: one row.
timeout_defaults = Table(
    "timeout_defaults",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("settings", Text, nullable=False),
    Column("since", BigInteger, nullable=False, comment="by the database's clock, in milliseconds since 1970"),
)

operation_activity = Table(
    "operation_activity",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("operation_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("operation_activity_of_operation", "operation_id", "id"),
)

# Ids of accepted announcements: a redelivered one must not replace a newer one.
announcements = Table(
    "announcements",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("message_id", _Key, primary_key=True),
    sqlite_with_rowid=False,
)

_CAN_EXPIRE = text("expires_at IS NOT NULL")

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
    # By the database's clock, in milliseconds since 1970.
    Column("registered_at", BigInteger, nullable=False),
    Column("dispatched_at", BigInteger, comment="NULL if not dispatched, or before schema 0009"),
    Column("reported_at", BigInteger, nullable=False, comment="when a report was last accepted"),
    Column("expires_at", BigInteger, comment="when to look whether it is over; NULL if nothing can be"),
    # The state comes first: an order over all states merges a page of each (see `worker.store.pagination`).
    Index("device_operations_by_creation", "operation_id", "state", "created_at", "id"),
    Index("device_operations_by_update", "operation_id", "state", "updated_at", "id"),
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
    Column("report_id", _Key, primary_key=True),
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

_IS_OPEN = text("status = 'open'")
_IS_PARKED = text("status = 'open' AND reason = 'unknown_device_operation'")
_IS_CLOSED = text("status <> 'open'")

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("fingerprint", Uuid, nullable=False, unique=True, comment="the same message makes no second row"),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime),
    Column("operation_id", Uuid),
    Column("device_id", Uuid),
    Column("service_id", Text),
    Column("device_operation_id", Uuid, comment="with report_id: the identity of a readable report"),
    Column("report_id", _Key),
    Column("message_id", Text),
    Column("type", Text),
    Column("sent_at", UtcDateTime),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("properties", JSON, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_removed_at", UtcDateTime, comment="when retention emptied the body"),
    Column("corrects", BigInteger, comment="the dead letter that this one is the corrected copy of"),
    Index("dead_letters_of_device_operation", "device_operation_id", "report_id"),
    Index("dead_letters_of_operation", "operation_id", "id"),
    Index("dead_letters_open", "id", postgresql_where=_IS_OPEN, sqlite_where=_IS_OPEN),
    Index(
        "dead_letters_parked", "operation_id", "received_at", postgresql_where=_IS_PARKED, sqlite_where=_IS_PARKED
    ),
    Index("dead_letters_closed", "resolved_at", postgresql_where=_IS_CLOSED, sqlite_where=_IS_CLOSED),
)

# Result of the last recount: one row, for the metrics.
recounts = Table(
    "recounts",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("drifted", BigInteger, nullable=False, comment="operations that it found wrong, and did not put right"),
)

# Actions on dead letters. The first entry is the receipt; it is written together with the second one, since most
# dead letters have no second one.
dead_letter_history = Table(
    "dead_letter_history",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("dead_letter_id", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, comment="NULL: the worker by itself"),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("dead_letter_history_of_dead_letter", "dead_letter_id", "id"),
)

# Workers that consume, each announced anew every few seconds: they share the partitions.
workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topology_prefix", Text, nullable=False),
    Column("partitions", SmallInteger, nullable=False, comment="how many it declares"),
    Column("seen_at", UtcDateTime, nullable=False, comment="by the server's clock"),
)
