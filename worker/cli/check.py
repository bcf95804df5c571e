"""The command that lists settings and tries the database and the broker: check."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from worker.amqp import policies, versions
from worker.amqp.connection import BrokerLost, Connection, connected
from worker.amqp.session import broker_errors_as_lost
from worker.amqp.topology import Topology
from worker.cli import tables
from worker.cli.common import configure_logging, notices, ready_database, run_async, screen
from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.files import OutputClosed
from worker.model.changes import Told
from worker.processing.write_probe import probe_write
from worker.store import database
from worker.store.server import describe, describe_all

app = typer.Typer(add_completion=False)


@app.command()
def check(
    explain: Annotated[bool, typer.Option("--explain", help="Describe each setting.")] = False,
) -> None:
    """List every setting, and check that the database and the broker can be used."""
    settings = Settings.load()
    configure_logging(settings)
    meanings = {variable(name): field.description or "" for name, field in Settings.model_fields.items()}
    values = {**settings.shown(), variable("database_url"): database.shown(settings.sqlalchemy_url)}
    screen.print(tables.settings(values, settings.origins(), meanings if explain else {}))
    failures = run_async(_check(settings))
    if failures:
        raise DeviceopsError("; ".join(failures))


async def _check(settings: Settings) -> list[str]:
    failures = []
    try:
        async with ready_database(settings, for_batches=True) as opened:
            await opened.run_with_timeout(probe_write(opened), settings.database_timeout)
            screen.print(f"database {opened}: ready, and a write was committed")
            found = await describe(opened)
            _tell([found.description], found.warnings)
            _tell(*await describe_all(settings))
    except OutputClosed:
        raise
    except DeviceopsError as error:
        failures.append(str(error))
    try:
        async with connected(settings) as connection:
            try:
                with broker_errors_as_lost():
                    async with asyncio.timeout(connection.answer_timeout):
                        lines = await _verify_topology(settings, connection)
            except BrokerLost as error:
                raise DeviceopsError(f"broker {connection.shown}: {error}") from error
            _tell(lines, ())
            own = list(versions.warnings(connection.server.get("version", "")))
            _tell([versions.describe(connection)], own)
            lines, warnings = await versions.describe_others(settings, connection)
            _tell(lines, [each for each in warnings if each not in own])
    except OutputClosed:
        raise
    except DeviceopsError as error:
        return [*failures, str(error)]
    try:
        risks = await asyncio.to_thread(policies.find_risks, settings)
    except policies.PoliciesUnavailable as error:
        notices.print(str(error), style="yellow", soft_wrap=True)  # it names commands
    else:
        failures += risks
        if not risks:
            screen.print("policies of the broker: none that takes messages out of the queues")
        _warn(await asyncio.to_thread(policies.find_lonely_queues, settings))
    return failures


async def _verify_topology(settings: Settings, connection: Connection) -> Sequence[str]:
    topology = Topology(settings.topology_prefix, settings.partitions)
    lines = await topology.verify(connection)
    return lines if settings.changes is Told.NONE else [*lines, await topology.verify_changes(connection)]


def _tell(lines: Iterable[str], warnings: Iterable[str]) -> None:
    for line in lines:
        screen.print(line)
    _warn(warnings)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        notices.print(f"warning: {warning}", style="yellow", soft_wrap=True)
