"""Everything of deviceops that touches the world, in the order in which a message travels.

1. `intake` receives: RabbitMQ deliveries or JSON lines become `messages.Message`
2. `batches` settles a batch whatever happens: it waits out failures that pass
3. `messages.parse` reads bytes by the `contract`: reports, announcements, or what is wrong with them
4. `portions` cuts what would be too much for one transaction, and isolates data that breaks one
5. `processor` runs one transaction: it reads what the batch is about (its `scope`, and what is `waiting` for it),
   decides, writes
6. `ledger` decides in memory, by the rules of `statemachine`; `batch_log` tells of it at debug
7. `dead_letters` is how a rejected message is kept
8. `store` holds the tables, the statements, and the queries that people read by
9. the intake acknowledges, after the commit; `outcomes` say what became of everything

Beside the way: `rehearsal` tries all of that out before anything is consumed, `mending` is what people do with
dead letters (`foresight` tells them what would come of it), `releasing` takes up what a worker that was killed
has left parked, `requests` is what somebody asks for and waits for, `api` the HTTP API. `trust` says who may
report, `tokens` who may call; `asyncapi` is the contract for other programs to read, with `examples`.
`condition` is how it stands with the broker and the database, `watch` what others see of a running worker,
`tracing` the traces of batches, whose `spans` are nothing where nobody asks. `settings` is the only reader of
the environment (but for OpenTelemetry's variables), of files that hold settings (`sources`), of addresses
(`urls`) and of certificates (`tls`); `errors` has the failures that people can act on, `files` are those and
standard streams whose failures name them, `encodings` recognises what is no UTF-8, `halves` mends texts that were
cut within a character, `log_writer` writes standard error for whatever reads it slowly or not at all, `simulate`
makes traffic, `listener` is a port to answer on, and `cli` is the `deviceops` command, where all is wired
together.
"""
