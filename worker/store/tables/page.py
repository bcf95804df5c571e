"""The web page: who is signed in, and who did what."""

from sqlalchemy import JSON, Column, LargeBinary, SmallInteger, Table, Text

from worker.store.tables.columns import Key, RowId, UtcDateTime, metadata

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
    Column("id", Key, primary_key=True, comment="SHA-256 of what the cookie has"),
    Column("token_name", Text, nullable=False),
    Column("token_hash", Text, nullable=False, comment="as in the settings; another one ends it"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

# Who did what on the web page, and when.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", Text, nullable=False, comment="name of the token"),
    Column("request_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)
