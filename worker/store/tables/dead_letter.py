"""Dead letters: rejected messages, and what people did about them."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, Table, Text, Uuid, text

from worker.store.tables.columns import Key, RowId, UtcDateTime, metadata

_IS_OPEN = text("status = 'open'")

_IS_PARKED = text("status = 'open' AND reason = 'unknown_device_operation'")

_IS_CLOSED = text("status <> 'open'")

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
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
    Column("report_id", Key),
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

# Actions on dead letters. The first entry is the receipt; it is written together with the second one, since most
# dead letters have no second one.
dead_letter_history = Table(
    "dead_letter_history",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("dead_letter_id", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, comment="NULL: the worker by itself"),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("dead_letter_history_of_dead_letter", "dead_letter_id", "id"),
)

# What people have noted on groups of dead letters.
dead_letter_notes = Table(
    "dead_letter_notes",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("filter", Key, nullable=False, comment="of the group, as a query string"),
    Column("at", UtcDateTime, nullable=False),
    Column("who", Text, nullable=False, comment="name of the token"),
    Column("text", Text, nullable=False),
    Index("dead_letter_notes_of_filter", "filter", "id"),
)
