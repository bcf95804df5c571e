"""Where the processor time of a worker goes, from py-spy's samples of its stacks.

A sample counts for the innermost frame that belongs to a part; code in C counts for the Python that called it, so
that what uvloop calls by itself, above all the reading of PostgreSQL's answers, is the loop's.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.consuming import running
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage
from tests.benchmarks.traffic import Traffic

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
    """Processor seconds per 100,000 reports of a worker on PostgreSQL, by part and in all."""
    traffic = Traffic.of(sizes.reports * sizes.rounds, seed=2)
    samples = stage.directory / "samples"
    program = str(Path(sys.executable).with_name("py-spy"))
    options = ("--format", "raw", "--full-filenames", "--rate", str(SAMPLES), "--output", str(samples))
    profiler = (program, "record", *options, "--")
    steps.begin(2)
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
