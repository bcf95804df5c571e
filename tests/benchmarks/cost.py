"""What a report costs, and where the processor time of a worker goes, from py-spy's samples of its stacks.

The time of worker, database and broker together depends little on how busy the machine is. A sample counts for
the innermost frame that belongs to a part; code in C counts for the Python that called it, so that what uvloop
calls by itself, above all the reading of PostgreSQL's answers, is the loop's.
"""

import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.consuming import running
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage
from tests.benchmarks.traffic import BULK, Traffic

PARTS = {
    "broker client": ("/aiormq/", "/aio_pika/", "/pamqp/", "/worker/amqp/"),
    "parse": ("/worker/model/messages.py", "/worker/model/contract.py", "/pydantic/", "/pydantic_core/"),
    "driver": ("/asyncpg/", "/dialects/postgresql/asyncpg.py"),
    "SQL build": ("/worker/store/", "/sqlalchemy/"),
    "decide": ("/worker/", "/statemachine/"),
    "loop": ("/asyncio/", "/uvloop/"),
}
"""The files of each part; what matches first counts."""
OTHER = "other"
SAMPLES = 250
"""In a second of processor time."""
IDLE = 2
PER = 100_000


async def cost(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Processor time of a report: of a worker, PostgreSQL and RabbitMQ together, and of a worker by its parts."""
    traffic = Traffic.of(sizes.reports * sizes.rounds, seed=2)
    steps.begin(2 + 2 * sizes.rounds)
    shapes = {"single messages": traffic, f"bulk messages of {BULK}": traffic.in_bulk()}
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in shapes}
    for number in range(sizes.rounds):
        for name, shape in shapes.items():
            steps.next(f"round {number + 1}: {name}")
            found[name].append(await _of_all(stage, shape))
    return {
        "microseconds_of_a_report": {
            name: {program: statistics.median(each[program] for each in rounds) for program in rounds[0]}
            for name, rounds in found.items()
        },
        **await _of_parts(stage, traffic, steps),
    }


async def _of_all(stage: Stage, traffic: Traffic) -> Mapping[str, float]:
    """Microseconds of a report, by program, and of all together. Others are not to use the services meanwhile."""
    async with stage.scene() as scene:
        await stage.broker.fill(scene.topology, traffic.messages)
        async with running(scene) as workers:
            began = await stage.broker.consumed_by(scene.topology, 1)
            before = await workers.processor_seconds()
            await workers.have_settled(traffic.expected.received, began)
            after = await workers.processor_seconds()
            await workers.stop()
    spent = {name: (after[name] - before[name]) / traffic.expected.received * 1e6 for name in before}
    return {**spent, "all": sum(spent.values())}


async def _of_parts(stage: Stage, traffic: Traffic, steps: Steps) -> Mapping[str, Any]:
    """Processor seconds per 100,000 reports of a worker on PostgreSQL, by part and in all, under the profiler."""
    samples = stage.directory / "samples"
    program = str(Path(sys.executable).with_name("py-spy"))
    options = ("--format", "raw", "--full-filenames", "--rate", str(SAMPLES), "--output", str(samples))
    profiler = (program, "record", *options, "--")
    steps.next("publishing")
    async with stage.scene() as scene:
        await stage.broker.fill(scene.topology, traffic.messages)
        steps.next("profiling")
        async with running(scene, wrapper=profiler, arguments=("--until-idle", str(IDLE))) as workers:
            began = await stage.broker.consumed_by(scene.topology, 1)
            [before] = await workers.metrics("process_cpu_seconds_total")
            await workers.have_settled(traffic.expected.received, began)
            [after] = await workers.metrics("process_cpu_seconds_total")
            await workers.have_ended()
    spent, per = after - before, PER / traffic.expected.received
    shares = parts(samples.read_text())
    total = shares.total()
    seconds = {part: spent * per * shares[part] / total for part in (*PARTS, OTHER)}
    return {"seconds": {**seconds, "all": spent * per}, "per": PER, "samples": total}


def parts(samples: str) -> Counter[str]:
    """How many samples each part has, of lines `frame;frame;frame count`, the innermost frame last."""
    found: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, number = line.rpartition(" ")
        if "/worker/cli/run.py" in stack:  # what was before is starting
            found[_part(stack.split(";"))] += int(number)
    return found


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, files in PARTS.items():
            if any(file in frame for file in files):
                return part
    return OTHER
