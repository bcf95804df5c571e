"""The database: tables and their migrations, the statements of a batch, and the queries that people read by.

- `database`: connections to SQLite and PostgreSQL, and what their errors mean
- `lines`: those to PostgreSQL that are dead and do not tell
- `tables`, `schema`, `migrations`: the schema and its versions
- `rows`, `statements`, `batch`: what the processor reads and writes, set-based on both databases
- `views`: the documents that the queries give, in the API reference's shapes
- `queries`, `recount`: what people read, and the proof that the counters are exact
"""
