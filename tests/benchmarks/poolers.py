"""What a pooler costs: a worker on PostgreSQL itself, and behind PgBouncers that lend sessions or transactions."""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from sqlalchemy import make_url

from tests.benchmarks.checking import check_database
from tests.benchmarks.consuming import rate_of_deviceops
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage, plain
from tests.benchmarks.traffic import Traffic
from tests.support.databases import PostgresqlServer
from tests.support.services import POOLERS, PoolMode, PrivatePgBouncer, PrivatePostgreSQL

DIRECT = "direct"


async def poolers(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Rates without a pooler and with each version of PgBouncer in each mode, their ratios, and the rounds."""
    traffic = Traffic.of(sizes.reports, seed=1)
    with ExitStack() as stack:
        server = stack.enter_context(PrivatePostgreSQL())  # it lets poolers in without a password
        databases = stack.enter_context(closing(PostgresqlServer(server.url)))
        own = replace(stage, postgresql_url=plain(server.url), databases=databases)
        runs: dict[str, Callable[[], Awaitable[float]]] = {DIRECT: lambda: rate_of_deviceops(own, traffic)}
        for version, pooler in POOLERS.items():
            for mode in get_args(PoolMode):
                between = stack.enter_context(pooler(server.url, mode))
                runs[_name(version, mode)] = partial(_rate_behind, between, own, traffic)
        steps.begin(sizes.rounds * len(runs))
        rounds: list[dict[str, float]] = []
        for number in range(sizes.rounds):
            found = {}
            for name in [*runs][:: -1 if number % 2 else 1]:
                steps.next(f"round {number + 1}: {name}")
                found[name] = await runs[name]()
            rounds.append({name: found[name] for name in runs})
    return {
        "rates": {name: statistics.median(each[name] for each in rounds) for name in runs},
        "ratios": {
            f"{name} / {DIRECT}": statistics.median(each[name] / each[DIRECT] for each in rounds)
            for name in runs
            if name != DIRECT
        },
        "rounds": rounds,
    }


def _name(version: str, mode: PoolMode) -> str:
    return f"{mode}s, PgBouncer {version}"


async def _rate_behind(pooler: PrivatePgBouncer, stage: Stage, traffic: Traffic) -> float:
    """Reports a second through a pooler; what they left is checked past it."""
    with stage.database() as url:
        behind = make_url(url).set(host="127.0.0.1", port=make_url(pooler.url).port)
        rate = await rate_of_deviceops(stage, traffic, database_url=behind.render_as_string(hide_password=False))
        await check_database(url, traffic.expected)
    return rate
