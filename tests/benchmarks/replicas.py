"""What replicas cost: one node of each, three brokers, a primary that waits for its standby, and both together.

All are private servers, in the processors and on the disk that one of each would have for itself.
"""

import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from typing import Any

from tests.benchmarks import broker
from tests.benchmarks.consuming import rate_of_deviceops
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage, plain
from tests.benchmarks.traffic import Traffic
from tests.support.databases import PostgresqlServer
from tests.support.services import PostgreSQLPair, PrivatePostgreSQL, PrivateRabbitMQ, RabbitMQCluster

NONE = "one of each"


async def replicas(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Rates with and without replicas, their ratios, and the rounds. Takes root, as the brokers have a network."""
    traffic = Traffic.of(sizes.reports, seed=1)
    async with AsyncExitStack() as stack:
        nodes = {
            1: stack.enter_context(PrivateRabbitMQ()).url,
            3: stack.enter_context(RabbitMQCluster()).nodes[0].url,
        }
        servers = {
            1: stack.enter_context(PrivatePostgreSQL()).url,
            2: stack.enter_context(PostgreSQLPair()).primary.url,
        }
        brokers = {number: await stack.enter_async_context(broker.connected(url)) for number, url in nodes.items()}
        databases = {
            number: stack.enter_context(closing(PostgresqlServer(url))) for number, url in servers.items()
        }
        stages = {
            name: replace(
                stage,
                amqp_url=nodes[brokers_],
                broker=brokers[brokers_],
                postgresql_url=plain(servers[servers_]),
                databases=databases[servers_],
            )
            for name, brokers_, servers_ in (
                (NONE, 1, 1),
                ("three brokers", 3, 1),
                ("a synchronous standby", 1, 2),
                ("both", 3, 2),
            )
        }
        steps.begin(sizes.rounds * len(stages))
        rounds: list[dict[str, float]] = []
        for number in range(sizes.rounds):
            found = {}
            for name in [*stages][:: -1 if number % 2 else 1]:
                steps.next(f"round {number + 1}: {name}")
                found[name] = await rate_of_deviceops(stages[name], traffic)
            rounds.append({name: found[name] for name in stages})
    return {
        "rates": {name: statistics.median(each[name] for each in rounds) for name in stages},
        "ratios": {
            f"{name} / {NONE}": statistics.median(each[name] / each[NONE] for each in rounds)
            for name in stages
            if name != NONE
        },
        "rounds": rounds,
    }
