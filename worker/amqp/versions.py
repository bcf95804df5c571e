"""What a version of RabbitMQ means for messages, for `deviceops check`."""

import re
from collections.abc import Iterator

from worker.amqp.connection import Connection

OLDEST = (3, 10)
"""The oldest version that has what the queues need, and is tested."""


def describe(connection: Connection) -> str:
    """The broker behind a connection, in one line."""
    server = connection.server
    cluster = f", cluster {server['cluster_name']}" if "cluster_name" in server else ""
    return (
        f"{server.get('product', 'AMQP broker')} {server.get('version', '')} at {connection.url.host}, "
        f"port {connection.url.port}{cluster}"
    )


def warnings(version: str) -> Iterator[str]:
    """What is to be known of a version, such as 3.10.8."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if not numbers or numbers < OLDEST:
        yield f"RabbitMQ {version} is older than 3.10, the oldest version that is supported"
    elif numbers == (3, 10):
        yield (
            f"RabbitMQ {version} keeps a new quorum queue in memory for about a second: one whose node is killed "
            "in that time never answers again, until it is deleted"
        )
