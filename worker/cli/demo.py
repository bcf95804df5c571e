"""The command that shows a tour: demo, a simulated roll-out with its own topology and database."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from worker import jsonl
from worker.amqp.connection import BrokerUnavailable, connected
from worker.amqp.consumer import Consumer
from worker.amqp.publisher import Destination, publish
from worker.amqp.topology import Topology
from worker.cli import log_format, tables
from worker.cli.common import ready_database, run_async, screen
from worker.cli.options import Seed
from worker.config.settings import Settings
from worker.config.urls import without_password
from worker.errors import DeviceopsError
from worker.model.messages import Message
from worker.model.outcomes import Reason, Tally
from worker.model.text import counted
from worker.processing.batches import process_messages
from worker.processing.expiry import Expirer, all_of_them
from worker.simulate import Disorder, simulate
from worker.store import dead_letters, queries
from worker.store.database import Database
from worker.store.dead_letters import GroupBy
from worker.store.recount import find_drift
from worker.store.selection import Selection

DATABASE = "deviceops-demo.db"
DISORDER = Disorder(disorder=0.2, duplicates=0.1, conflicts=0.02, malformed=0.005, early=0.1, silent=0.03)
TIMEOUTS = {"total": 9.0}
"""Seconds, so that devices that fall silent are timed out soon after the roll-out."""
SECONDS = 6
"""Seconds that the roll-out takes, about."""
STEPS = 60
"""Number of refreshes."""

app = typer.Typer(add_completion=False)

Feed = Callable[[Sequence[Message]], Awaitable[None]]


@app.command()
def demo(
    devices: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="Devices of the roll-out.")] = 500,
    seed: Seed = 1,
) -> None:
    """Watch a roll-out over 500 simulated devices, through RabbitMQ where it answers."""
    forget_last_demo()
    run_async(run_demo(Settings.load(), devices, seed))
    if sys.stdin.isatty() and screen.is_terminal:
        _offer_page()


def forget_last_demo() -> None:
    """Remove the database of the previous demo."""
    for suffix in ("", "-wal", "-shm"):
        Path(DATABASE + suffix).unlink(missing_ok=True)


async def run_demo(settings: Settings, devices: int, seed: int) -> None:
    """Show a roll-out. Raises DeviceopsError if anything was lost or a counter drifted."""
    log_format.configure("ERROR")
    own = Settings(
        database_url=f"sqlite:///{DATABASE}",
        database_ca_file=None,
        database_cert_file=None,
        database_key_file=None,
        amqp_url=settings.amqp_url,
        topology_prefix=f"device-operations-demo-{secrets.token_hex(4)}",
        batch_size=100,
    )
    lines = list(simulate(1, devices, seed, DISORDER, TIMEOUTS))
    tally = Tally()
    async with ready_database(own, creates=True) as database:

        async def process(messages: Sequence[Message]) -> None:
            tally.add(await process_messages(database, messages))

        async with _way(own, process) as feed:
            await _roll_out(database, lines, feed, tally)
            await _time_out(database)
        await _conclude(database, tally)


@asynccontextmanager
async def _way(settings: Settings, process: Feed) -> AsyncIterator[Feed]:
    """How messages reach `process`: through the broker if one answers, else directly."""
    topology = Topology(settings.topology_prefix)
    broker = without_password(settings.amqp_url)
    try:
        async with connected(settings) as connection:
            screen.print(f"Through RabbitMQ at {broker}, with a topology of its own.")
            stop = asyncio.Event()
            try:
                async with connection.channel() as channel:
                    await topology.declare(channel)
                destination = await Destination.at(connection, topology.exchange)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(Consumer(settings, process, stop).run())
                    yield lambda messages: publish(destination, messages)
                    stop.set()
            finally:
                await topology.delete(connection)
    except BrokerUnavailable as error:
        screen.print(f"No RabbitMQ ({error}).", style="yellow")
        screen.print("So the reports are processed in this process; everything else is the same.")
        yield process


async def _roll_out(database: Database, lines: Sequence[str], feed: Feed, tally: Tally) -> None:
    """Feed the lines evenly over a few seconds, and show the counters as they change."""
    with Live(console=screen, auto_refresh=False) as live:
        size = -(-len(lines) // STEPS)
        for start in range(0, len(lines), size):
            await feed([jsonl.as_message(line.encode()) for line in lines[start : start + size]])
            await _show(live, database, tally, len(lines))
        while tally.received < len(lines):
            await _show(live, database, tally, len(lines))
        await _show(live, database, tally, len(lines))
    if not screen.is_terminal:
        screen.print()  # without a terminal, Live does not end its last line


async def _time_out(database: Database) -> None:
    """Wait until the devices that fell silent are timed out, so that the operation ends.

    Every report was processed: none waits in a queue.
    """
    async with database.read() as connection:
        [(operation, progress)] = await queries.list_operations(connection)
    silent = progress.open
    if not silent:
        return
    screen.print(f"{counted(silent, 'device')} fell silent: the operation is {operation.state}. Timeouts end it:")
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    while tally.timeouts.total() < silent:
        await expirer.act()
        await asyncio.sleep(SECONDS / STEPS)
    async with database.read() as connection:
        found = await queries.list_operations(connection)
    screen.print(tables.operations(found))


async def _show(live: Live, database: Database, tally: Tally, expected: int) -> None:
    async with database.read() as connection:
        found = await queries.list_operations(connection)
    received = Text(f"{tally.received:,} of {expected:,} messages processed", style="dim")
    live.update(Group(tables.operations(found), received), refresh=screen.is_terminal)
    await asyncio.sleep(SECONDS / STEPS)


async def _conclude(database: Database, tally: Tally) -> None:
    """Print the results: counters, dead letters, the recount, and what to try next."""
    async with database.read() as connection:
        [(operation, _)] = await queries.list_operations(connection)
        groups = await dead_letters.count_by(connection, Selection(), GroupBy.REASON)
        examples = [
            (group, (await dead_letters.find(connection, Selection(reason=Reason(str(group.value))), limit=1))[0])
            for group in groups
        ]
    count, drifted = await find_drift(database)
    screen.print(tables.rule("messages received, and their outcomes"))
    screen.print(tables.tally(tally))
    screen.print(tables.rule("the operation's counters"))
    screen.print(tables.counters(operation.operation_stats.device_operation_statuses_count))
    screen.print(tables.rule("dead letters, with an example of each reason"))
    for group, letter in examples:
        screen.print(f"{group.count:,} {group.value}, such as:", tables.plain(letter.detail))
    if drifted:
        raise DeviceopsError(
            "the recount differs from the counters: run `deviceops recount` on the demo's database"
        )
    screen.print(f"Recount: all counters of {count} operation agree with its device operations.", style="green")
    screen.print(tables.rule("try next"))
    command = f"DEVICEOPS_DATABASE_URL=sqlite:///{DATABASE} {_own_command()}"
    for arguments in (
        f"status {operation.id}",
        f"devices {operation.id} --state FAILURE",
        "dead-letters list",
        "serve",
    ):
        screen.print(f"{command} {arguments}", soft_wrap=True, highlight=False)


def _offer_page() -> None:
    """Serve the web page of the roll-out in place of this process, if the person at the terminal wants it."""
    try:
        if not typer.confirm("Serve the web page of this roll-out now, until Ctrl-C?"):
            return
    except typer.Abort:  # the end of the input, or Ctrl-C
        return
    environment = {**os.environ, "DEVICEOPS_DATABASE_URL": f"sqlite:///{DATABASE}"}
    os.execve(sys.executable, [sys.executable, "-m", "worker", "serve"], environment)  # noqa: S606  # no shell is wanted


def _own_command() -> str:
    """The command line of deviceops, as it was called: it may not be on the path."""
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{sys.executable} -m worker"
    nearby = os.path.relpath(sys.argv[0])
    return sys.argv[0] if nearby.startswith("..") else nearby
