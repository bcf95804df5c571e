"""The tables for SQLite and PostgreSQL. Times are UTC; ids are UUIDs; states are integer codes."""

from datetime import UTC, datetime
from typing import Any

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


def _told() -> list[Column[Any]]:
    """The columns of a change; the names of the first five are those that Debezium's router reads."""
    return [
        Column("id", Uuid, nullable=False, comment="of the message, the same in each copy"),
        Column("aggregatetype", Text, nullable=False),
        Column("aggregateid", _Key, nullable=False),
        Column("type", Text, nullable=False),
        Column("payload", Text, nullable=False, comment="JSON"),
        Column("routing_key", Text, nullable=False),
        Column("sequence", BigInteger, comment="of an operation's changes"),
        Column("recorded_at", BigInteger, nullable=False, comment="in milliseconds since 1970"),
    ]


# Changes as their transactions write them, until they are numbered; empty on SQLite, where transactions that write
# follow each other and number theirs.
outbox = Table("outbox", metadata, Column("position", _RowId, primary_key=True, autoincrement=True), *_told())

# The log: changes in the order in which all readers see them. No change becomes visible before one that has a
# smaller position.
changes = Table(
    "changes",
    metadata,
    Column("position", _RowId, primary_key=True, autoincrement=False),
    *_told(),
    Index("changes_of_operation", "aggregateid", "position"),
)

# How far the log goes (`log`), and how far its readers are.
change_cursors = Table(
    "change_cursors",
    metadata,
    Column("name", _Key, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("holder", Uuid, comment="the worker that publishes"),
    Column("held_until", BigInteger, nullable=False, server_default="0"),
    Column("dropped", BigInteger, nullable=False, server_default="0"),
)

# Webhooks as workers have them in their settings; times are milliseconds since 1970 by the database's clock.
webhooks = Table(
    "webhooks",
    metadata,
    Column("name", _Key, primary_key=True),
    Column("types", Text, nullable=False, comment="of the changes that it takes"),
    Column("position", BigInteger, nullable=False, comment="up to which it is owed what it takes"),
    Column("seen_at", BigInteger, nullable=False, comment="when a worker last had it in its settings"),
    Column("off_at", BigInteger, comment="when its receiver switched it off; NULL if it is on"),
    Column("failures", Integer, nullable=False, server_default="0", comment="since the last success"),
    Column("resumes_at", BigInteger, nullable=False, server_default="0", comment="no attempt before"),
    Column("succeeded_at", BigInteger, comment="the last time"),
    Column("success_status", SmallInteger),
    Column("failed_at", BigInteger, comment="the last time"),
    Column("failure_status", SmallInteger, comment="NULL without an answer"),
    Column("failure", Text, comment="why"),
    Column("given_up", BigInteger, nullable=False, server_default="0"),
    Column("dropped", BigInteger, nullable=False, server_default="0"),
)

_IS_LEASED = text("lease IS NOT NULL")

# What is owed to webhooks, a copy for each: the log forgets its changes earlier.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("webhook", _Key, primary_key=True),
    Column("position", BigInteger, primary_key=True, comment="in the log"),
    Column("id", Uuid, nullable=False, comment="of the change, and of the message at each attempt"),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False, comment="JSON"),
    Column("recorded_at", BigInteger, nullable=False, comment="in milliseconds since 1970"),
    Column("attempts", SmallInteger, nullable=False, server_default="0", comment="that failed"),
    Column("due_at", BigInteger, nullable=False, comment="of the next attempt; or when the lease ends"),
    Column("lease", Uuid, comment="of the attempt that is made now"),
    Index("webhook_deliveries_due", "webhook", "due_at", "position"),
    Index("webhook_deliveries_leased", "webhook", postgresql_where=_IS_LEASED, sqlite_where=_IS_LEASED),
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

# How many device operations settled in each minute: a row for an hour, of an operation in which any did.
operation_minutes = Table(
    "operation_minutes",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="since 1970"),
    Column("settled", Text, nullable=False, comment="minutes of the hour and numbers, as in `0=12 1=7`"),
)

# Device operations that did not succeed, counted by cause (`worker.model.causes`).
reason_groups = Table(
    "reason_groups",
    metadata,
    Column("operation_id", Uuid, primary_key=True),
    Column("state", SmallInteger, primary_key=True, autoincrement=False),
    Column("cause", _Key, primary_key=True),
    Column("devices", BigInteger, nullable=False, comment="number of device operations"),
    Column("code", Text),
    Column("reason", Text, nullable=False, comment="masked"),
    Column("example", Text, nullable=False, comment="the reason of one of its reports"),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)

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
    Column("service_id", _Key, comment="of the same report; NULL if an announcement registered it"),
    Column("cause", _Key, comment="its code, or one made of its reason if it did not succeed"),
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

# Workers that consume, each announced anew every few seconds: they share the partitions. Those that share nothing
# have 0 partitions, and are announced less often.
workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topology_prefix", Text, nullable=False),
    Column("partitions", SmallInteger, nullable=False, comment="how many it declares"),
    Column("seen_at", UtcDateTime, nullable=False, comment="by the server's clock"),
)

# What people have noted on groups of dead letters.
dead_letter_notes = Table(
    "dead_letter_notes",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("filter", _Key, nullable=False, comment="of the group, as a query string"),
    Column("at", UtcDateTime, nullable=False),
    Column("who", Text, nullable=False, comment="name of the token"),
    Column("text", Text, nullable=False),
    Index("dead_letter_notes_of_filter", "filter", "id"),
)

# The key that signs the cookies of the web page: one row, which all processes and restarts share.
page_keys = Table(
    "page_keys",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False, comment="signs cookies"),
    Column("created_at", UtcDateTime, nullable=False),
)

# Who is signed in to the web page.
page_sessions = Table(
    "page_sessions",
    metadata,
    Column("id", _Key, primary_key=True, comment="SHA-256 of what the cookie has"),
    Column("token_name", Text, nullable=False),
    Column("token_hash", Text, nullable=False, comment="as in the settings; another one ends it"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

# Who did what on the web page, and when.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", Text, nullable=False, comment="name of the token"),
    Column("request_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)
