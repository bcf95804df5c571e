"""The consumers that deviceops is measured beside, each a program of its own.

- `bare` acknowledges and does nothing else: what the broker and its client can give
- `usual` is the consumer people write: FastStream, SQLAlchemy, one transaction a message
- `handling` is what `usual` does with a message

Each tells one JSON document when it has acknowledged as many messages as it was told to.
"""
