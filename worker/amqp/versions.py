"""What the nodes of a broker are, and what their version means for messages, for `deviceops check`."""

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import SecretStr
from yarl import URL

from worker.amqp.connection import BrokerUnavailable, Connection, connected
from worker.config.settings import Settings

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


class OtherNodes(NamedTuple):
    """The nodes of a broker's URL beside the one that a connection has reached."""

    descriptions: list[str]
    """A line for each that answers."""
    warnings: list[str]


async def describe_others(settings: Settings, reached: Connection) -> OtherNodes:
    """Connect to each other node that the settings name."""
    found = OtherNodes([], [])
    own = reached.url.host, reached.url.port
    others = {(node.host, node.port): node for node in settings.brokers if (node.host, node.port) != own}
    for node in await asyncio.gather(*(_describe_node(settings, node, reached) for node in others.values())):
        found.descriptions.extend(node.descriptions)
        found.warnings.extend(warning for warning in node.warnings if warning not in found.warnings)
    return found


async def _describe_node(settings: Settings, node: URL, reached: Connection) -> OtherNodes:
    try:
        async with connected(settings.model_copy(update={"amqp_url": SecretStr(str(node))})) as connection:
            told = list(warnings(connection.server.get("version", "")))
            ours, theirs = (each.server.get("cluster_name") for each in (reached, connection))
            if ours != theirs:
                told.append(
                    f"{node.host}, port {node.port} belongs to another cluster: {theirs} instead of {ours}; each "
                    "has queues of its own"
                )
            return OtherNodes([describe(connection)], told)
    except BrokerUnavailable as error:
        return OtherNodes([], [f"{error}; workers cannot go over to this node"])
