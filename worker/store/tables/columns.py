"""What the tables are made of. Times are UTC; ids are UUIDs; states are integer codes."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, Text, TypeDecorator


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

RowId = BigInteger().with_variant(Integer, "sqlite")
"""An integer that the database counts up. SQLite autoincrements INTEGER columns only."""
Key = Text().with_variant(Text(collation="C"), "postgresql")
"""Text in keys and indexes, with the collation C (byte order), as in SQLite.

With another one, an upgrade of the C library may change the order, and rows are not found in the index any more.
"""
