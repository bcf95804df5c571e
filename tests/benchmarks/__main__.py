"""`python -m tests.benchmarks [NAME] [--json FILE]`: measures, shows a table, and leaves nothing behind."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import chart, stage
from tests.benchmarks.changes import changes
from tests.benchmarks.cost import cost
from tests.benchmarks.filters import filters
from tests.benchmarks.growth import growth
from tests.benchmarks.large import large
from tests.benchmarks.latency import latency
from tests.benchmarks.memory import memory
from tests.benchmarks.poolers import poolers
from tests.benchmarks.replicas import replicas
from tests.benchmarks.retry import retry
from tests.benchmarks.sizes import DEFAULT, QUICK, Sizes, Steps
from tests.benchmarks.tables import conditions, tables
from tests.benchmarks.throughput import CONSUMERS, throughput
from tests.benchmarks.timeouts import timeouts
from tests.benchmarks.workers import workers


class Name(StrEnum):
    """The benchmarks."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    GROWTH = "growth"
    MEMORY = "memory"
    COST = "cost"
    REPLICAS = "replicas"
    POOLERS = "poolers"
    WORKERS = "workers"
    LARGE = "large"
    TIMEOUTS = "timeouts"
    CHANGES = "changes"
    RETRY = "retry"
    FILTERS = "filters"


BENCHMARKS: Mapping[Name, Callable[[stage.Stage, Sizes, Steps], Awaitable[Mapping[str, Any]]]] = {
    Name.THROUGHPUT: throughput,
    Name.LATENCY: latency,
    Name.GROWTH: growth,
    Name.MEMORY: memory,
    Name.COST: cost,
    Name.REPLICAS: replicas,
    Name.POOLERS: poolers,
    Name.WORKERS: workers,
    Name.LARGE: large,
    Name.TIMEOUTS: timeouts,
    Name.CHANGES: changes,
    Name.RETRY: retry,
    Name.FILTERS: filters,
}


def main(
    name: Annotated[Name | None, typer.Argument(help="One benchmark; without it all.", show_default=False)] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turn.")] = DEFAULT.rounds,
    reports: Annotated[int, typer.Option(min=1_000, help="Of one run of a consumer.")] = DEFAULT.reports,
    messages: Annotated[int, typer.Option(min=1_000, help="Of the backlog of `memory`.")] = DEFAULT.messages,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each rate of `latency`.")] = DEFAULT.seconds,
    filtered: Annotated[
        int, typer.Option("--devices", min=1_000, help="Device operations of `filters`.")
    ] = DEFAULT.filtered,
    repeats: Annotated[
        int, typer.Option(min=1, help="Repeated reports of a device in `filters`.")
    ] = DEFAULT.repeats,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, whose figures mean nothing.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")] = None,
    chart_file: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Draw the rates of `throughput` (SVG).")
    ] = None,
) -> None:
    """Measure deviceops, beside what else people would use where that is possible, on real services."""
    sizes = QUICK if quick else Sizes(rounds, reports, messages, seconds, filtered=filtered, repeats=repeats)
    try:
        documents = uvloop.run(_measured([name] if name else list(Name), sizes))
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    console = Console()
    for each, document in documents.items():
        for table in tables(each, document):
            console.print(table)
        console.print(conditions(document["conditions"]), highlight=False)
    if json_file is not None:
        written = documents[name] if name else documents
        json_file.write_text(json.dumps(written, indent=2) + "\n")
    if chart_file is not None and Name.THROUGHPUT in documents:
        chart.draw(documents[Name.THROUGHPUT]["rates"], CONSUMERS, chart_file)


async def _measured(names: list[Name], sizes: Sizes) -> dict[str, Mapping[str, Any]]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as Ctrl-C: clean up, and leave
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    documents: dict[str, Mapping[str, Any]] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            async with stage.opened() as opened:
                found = await opened.conditions()
                steps = Steps(progress, progress.add_task(name, total=None, started=False))
                with stage.watching_theft(found):
                    document = await BENCHMARKS[name](opened, sizes, steps)
                steps.end(name)
            documents[name.value] = {**document, "conditions": found}
    return documents


if __name__ == "__main__":
    typer.run(main)
