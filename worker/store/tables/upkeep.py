"""What workers note of themselves, and of the tasks that they share."""

from sqlalchemy import BigInteger, Column, SmallInteger, Table, Text, Uuid

from worker.store.tables.columns import Key, RowId, UtcDateTime, metadata

# Workers that consume and share the partitions; each updates its row every few seconds. Workers without partitions
# have 0, and update theirs less often.
workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topology_prefix", Text, nullable=False),
    Column("partitions", SmallInteger, nullable=False, comment="how many it declares"),
    Column("seen_at", UtcDateTime, nullable=False, comment="by the server's clock"),
)

# How far each worker has come with each queue, in milliseconds since 1970 by the database's clock.
consumers = Table(
    "consumers",
    metadata,
    Column("worker_id", Uuid, primary_key=True),
    Column("queue", Key, primary_key=True),
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

# Result of the last recount: one row, for the metrics.
recounts = Table(
    "recounts",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("drifted", BigInteger, nullable=False, comment="operations that it found wrong, and did not put right"),
)
