"""Where messages come from, and how they are settled.

- `topology`: the exchanges and queues, declared and verified
- `connection`: connections to RabbitMQ, and what its errors mean
- `wire`: the bytes of one, out of which deliveries are read as they arrive; `delivery`: one of them
- `consumer`: consuming from RabbitMQ, session after session
- `lease`: queues kept in use while nothing is consumed
- `session`: one connection, with acknowledgement after the commit
- `deliveries`: what was delivered as messages, `deaths`: why the broker gave one up, in words
- `decoding`: no property or header breaks the connection
- `buffer`: how deliveries become batches
- `jsonl`: JSON lines from a file or standard input
- `publisher`: JSON lines to RabbitMQ
"""
