"""RabbitMQ: consuming with acknowledgement after the commit, and publishing with confirms.

- `connection`: connections to RabbitMQ, and its errors
- `topology`: exchanges and queues, declared and verified; `policies`: the broker's policies that endanger messages
- `frames`: the fast path, which reads deliveries out of the bytes of a connection; `delivery`: one delivery;
  `lenient_decoding`: properties and headers that cannot be decoded
- `reading`: deliveries as messages; `x_death`: why the broker abandoned a message
- `batching`: deliveries as batches
- `session`: one connection that consumes; `consumer`: one session after another
- `keepalive`: keeps queues in use while nothing is consumed
- `publisher`: publishes JSON lines
- `relay`: publishes changes
"""
