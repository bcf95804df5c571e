"""The database: schema and migrations, the statements of a batch, and read queries.

- `database`: transactions, timeouts; `sqlite`, `postgresql`: engines; `driver`: asyncpg, imported on first use
- `errors`: classification of database errors; `dead_connections`: detection and removal of dead connections
- `tables`, `schema`, `migrations`: the schema and its versions
- `bulk`, `statements`: set-based statements on both databases
- `batch`, `dead_letter_batch`: the reads and writes of a batch
- `queries`, `activity`, `documents`: read queries and the documents that they return
- `pagination`, `listing`: pages; `device_filter`, `operation_filter`: which rows they have
- `exports`, `export_lines`: all rows of a list, as text
- `dead_letters`, `selection`: queries on dead letters, and their filters; `dead_letter_groups`: by reason and
  masked detail; `dead_letter_notes`: what people note on groups
- `overview`: a page of operations with how each goes; `search`: what an id is of
- `device_overview`: a device's operations and dead letters; `system_overview`: workers, what waits
- `page_sessions`, `audit`: who is signed in to the web page, and who did what; `page_marks`: what has changed
- `retries`: what a retry reads
- `webhooks`, `webhook_deliveries`: which webhooks there are, and what is owed to each
- `recount`, `consistency`: verification of counters, histories and references
- `outbox`, `change_log`: changes and their positions; `change_reader`: reads on from a cursor in the database,
  `change_page` from a position; `change_signal`: says when to look
- `pruning`: deletion of old rows; `notify`: LISTEN/NOTIFY; `copy_database`: copy to another database
"""
