"""Changes that others are told: the transactional outbox, the log, and what is owed to webhooks."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, Table, Text, Uuid, text

from worker.store.tables.columns import Key, RowId, metadata


def _told() -> list[Column[Any]]:
    """The columns of a change; the names of the first five are those that Debezium's router reads."""
    return [
        Column("id", Uuid, nullable=False, comment="of the message, the same in each copy"),
        Column("aggregatetype", Text, nullable=False),
        Column("aggregateid", Key, nullable=False),
        Column("type", Text, nullable=False),
        Column("payload", Text, nullable=False, comment="JSON"),
        Column("routing_key", Text, nullable=False),
        Column("sequence", BigInteger, comment="of an operation's changes"),
        Column("recorded_at", BigInteger, nullable=False, comment="in milliseconds since 1970"),
    ]


# Changes as their transactions write them, until they are numbered; empty on SQLite, where transactions that write
# follow each other and number theirs.
outbox = Table("outbox", metadata, Column("position", RowId, primary_key=True, autoincrement=True), *_told())

# The log: changes in the order in which all readers see them. No change becomes visible before one that has a
# smaller position.
changes = Table(
    "changes",
    metadata,
    Column("position", RowId, primary_key=True, autoincrement=False),
    *_told(),
    Index("changes_of_operation", "aggregateid", "position"),
)

# How far the log goes (`log`), and how far its readers are.
change_cursors = Table(
    "change_cursors",
    metadata,
    Column("name", Key, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("holder", Uuid, comment="the worker that publishes"),
    Column("held_until", BigInteger, nullable=False, server_default="0"),
    Column("dropped", BigInteger, nullable=False, server_default="0"),
)

# Webhooks as workers have them in their settings; times are milliseconds since 1970 by the database's clock.
webhooks = Table(
    "webhooks",
    metadata,
    Column("name", Key, primary_key=True),
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
    Column("webhook", Key, primary_key=True),
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
