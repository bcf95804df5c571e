"""The worker, in the order in which a message travels.

1. `amqp` receives deliveries (`jsonl` reads files) and makes each a `model.messages.Message`.
2. `processing.batches` processes a batch until it is committed: retries transient failures, isolates bad data.
3. `model.messages.parse` turns bytes into reports, bulk reports and announcements, by `model.contract`.
4. `processing.splitting` divides what is too much for one transaction.
5. `processing.transaction` runs one transaction: load, decide, write. `processing.loading` says what a batch
   touches, `processing.decisions` decides in memory by the rules of `statemachine`.
6. `store` has the tables, the statements of a batch, and the queries.
7. `amqp` acknowledges after the commit.
8. `processing.changes` makes what the transaction tells others; `store.outbox` writes it with the transaction and
   numbers it after the commit into `store.change_log`; `store.change_reader` reads it, `amqp.relay` publishes it.

Besides:

- `dead_letters`: replay, correct, discard, export and import of rejected messages, retention
- `processing.expiry`: timeouts, cancellation after an abort, changed timeouts; `amqp.watermarks`: up to which
  moment nothing waits in a queue
- `processing.together`: several batches in one transaction; `processing.retry`: an operation of what failed
- `processing.direct`: synchronous processing for HTTP; `processing.dry_run`: what a replay would do;
  `processing.write_probe`: a batch that is written and rolled back before anything is consumed;
  `processing.backlog`: parked reports
- `webhooks`: changes sent to receivers by HTTP
- `api`: the HTTP API; `pages`: the web page; `service`: a running worker; `cli`: the `deviceops` command
- `watch`: probes, metrics, systemd notifications, watchdog; `tracing`: OpenTelemetry
- `asyncapi`: the contract for producers and listeners
- `config`: settings, secret files, URLs, TLS, reporters, API tokens
- `dependency`: whether the broker and the database are up; `failover`: which of several hosts to try first
- `errors`: failures with one clear line and an exit code
- `files`, `log_writer`, `listener`: files and streams, standard error, a listening socket
- `simulate`: generated traffic; `waiting`: for the first of several things
"""
