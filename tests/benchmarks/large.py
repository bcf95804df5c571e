"""What several workers do about one large operation, whose reports come to one queue, or to that of their device.

Its devices are registered before the clock runs: with the device's id as routing key, reports would overtake the
announcement, and wait for it as dead letters.
"""

import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.benchmarks import broker
from tests.benchmarks.broker import Key
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage
from tests.benchmarks.traffic import Traffic
from tests.benchmarks.workers import BACKLOG, WORKERS, Found, measure
from tests.support.services import PrivateRabbitMQ
from worker.amqp.publisher import routing_key
from worker.model.messages import Message


def by_device(message: Message) -> str:
    """The id of the device, or what else names a message that has none."""
    try:
        return str(json.loads(message.body)["device_id"])
    except (ValueError, KeyError):
        return routing_key(message)


QUEUES: Mapping[str, tuple[int, Key]] = {
    "one queue": (1, routing_key),
    "8 partitions": (8, routing_key),
    "8 partitions by device": (8, by_device),
}
"""Partitions, and what decides to which of them a report comes."""


async def large(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Reports per second of one operation, by workers, queues and routing key, ratios to one worker, and waits."""
    whole = Traffic.of_one(sizes.large, BACKLOG * sizes.reports, seed=1)
    announcement, *messages = whole.messages
    traffic = Traffic(messages, replace(whole.expected, received=whole.expected.received - 1))
    cases = [(number, queues) for queues in QUEUES for number in WORKERS]
    steps.begin(sizes.rounds * len(cases))
    rounds: list[dict[str, Found]] = []
    with PrivateRabbitMQ() as server:
        async with broker.connected(server.url) as connection:
            own = replace(stage, amqp_url=server.url, broker=connection)
            for number in range(sizes.rounds):
                found = {}
                for workers, queues in cases[:: -1 if number % 2 else 1]:
                    steps.next(f"round {number + 1}: {_name(workers, queues)}")
                    partitions, key = QUEUES[queues]
                    found[_name(workers, queues)] = await measure(
                        own, traffic, workers, partitions, earlier=[announcement], key=key
                    )
                rounds.append({_name(*case): found[_name(*case)] for case in cases})
    first = rounds[0]
    return {
        "devices": sizes.large,
        "rates": {name: statistics.median(each[name].rate for each in rounds) for name in first},
        "ratios": {
            f"{_name(*case)} / {_name(*cases[0])}": statistics.median(
                each[_name(*case)].rate / each[_name(*cases[0])].rate for each in rounds
            )
            for case in cases[1:]
        },
        "share_of_transactions": {
            name: {
                what: statistics.median(each[name].waiting[what] for each in rounds)
                for what in first[name].waiting
            }
            for name in first
        },
        "rounds": [{name: found.rate for name, found in each.items()} for each in rounds],
    }


def _name(workers: int, queues: str) -> str:
    return f"{workers} worker{'s' * (workers > 1)}, {queues}"
