"""Alembic's entry point: it runs on the connection, and in the transaction, that `schema.migrate` gives it."""

from alembic import context

from worker.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
