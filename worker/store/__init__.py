"""The database: schema and migrations, the statements of a batch, and read queries.

- `database`: transactions, timeouts; `sqlite`, `postgresql`: engines; `driver`: asyncpg, imported on first use
- `errors`: classification of database errors; `dead_connections`: detection and removal of dead connections
- `tables`, `schema`, `migrations`: the schema and its versions
- `bulk`, `statements`, `batch`: set-based reads and writes of a batch, on both databases
- `queries`, `activity`, `pagination`, `documents`: read queries and the documents that they return
- `dead_letters`, `selection`: queries on dead letters, and their filters
- `recount`, `consistency`: verification of counters, histories and references
- `pruning`: deletion of old rows; `notify`: LISTEN/NOTIFY; `copy_database`: copy to another database
"""
