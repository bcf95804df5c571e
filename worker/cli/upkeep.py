"""Commands that keep an installation sound: migrate, check, recount, prune."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from worker.amqp import policies
from worker.amqp.connection import connected
from worker.amqp.topology import Topology
from worker.cli import tables
from worker.cli.common import Json, configure_logging, notices, print_json, ready_database, run_async, screen
from worker.config import urls
from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.dead_letters.retention import Retention
from worker.errors import DeviceopsError, SettingsError
from worker.processing.write_probe import rehearse
from worker.store import copy_database, database, errors, schema, sqlite
from worker.store.recount import Drift, find_drift, fix_drift, keep_recount

DRIFT = 3
"""Exit code: counters differ from the rows."""

app = typer.Typer()


@app.command()
def migrate(
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="Then copy all of this SQLite file into the database, still empty."
        ),
    ] = None,
) -> None:
    """Bring the database's schema to the version that this deviceops needs."""
    settings = Settings.load()
    old = None if source is None else _with_file(settings, source)
    screen.print(run_async(_migrate(settings)))
    if old is not None:
        screen.print(tables.numbers(run_async(_copy(old, settings))))
        screen.print("copied, and all counters agree")


async def _migrate(settings: Settings) -> str:
    async with database.opened(settings) as opened:
        return f"database {opened} has schema {await schema.migrate(opened)}"


def _with_file(settings: Settings, source: str) -> Settings:
    try:
        url = urls.database_url(SecretStr(source))
    except ValueError as error:
        raise SettingsError(f"--from: {error}") from None
    if sqlite.file_of(make_url(url.get_secret_value())) is None:
        raise SettingsError("--from: is for SQLite files; PostgreSQL has pg_dump")
    if sqlite.file_of(settings.sqlalchemy_url) is not None:
        raise SettingsError(f"--from: copies to PostgreSQL, and {variable('database_url')} names no such database")
    no_tls = dict.fromkeys(("database_ca_file", "database_cert_file", "database_key_file"))
    return settings.model_copy(update={"database_url": url, **no_tls})


async def _copy(source: Settings, target: Settings) -> Mapping[str, int]:
    async with ready_database(source) as old, ready_database(target) as new:
        with tables.counting("copying", None) as progress:
            copied = await copy_database.copy(old, new, progress)
        if drifted := (await find_drift(new))[1]:
            raise DeviceopsError(
                f"database {new}: was copied as it stood, with {len(drifted):,} things that do not agree: "
                "see `deviceops recount`"
            )
    return copied


@app.command()
def check() -> None:
    """List every setting, and see whether the database and the broker can be used."""
    settings = Settings.load()
    configure_logging(settings)
    descriptions = {variable(name): field.description or "" for name, field in Settings.model_fields.items()}
    screen.print(tables.settings(settings.shown(), settings.origins(), descriptions))
    failures = run_async(_check(settings))
    if failures:
        raise DeviceopsError("; ".join(failures))


async def _check(settings: Settings) -> list[str]:
    failures = []
    try:
        async with ready_database(settings, for_batches=True) as opened:
            await opened.answered(rehearse(opened), settings.database_timeout)
            screen.print(f"database {opened}: ready, and a write was committed")
    except DeviceopsError as error:
        failures.append(str(error))
    try:
        async with connected(settings) as connection:
            screen.print(await Topology(settings.topology_prefix).verify(connection))
    except DeviceopsError as error:
        return [*failures, str(error)]
    try:
        dangers = await asyncio.to_thread(policies.dangers, settings)
    except policies.PoliciesUnread as error:
        notices.print(str(error), style="yellow", soft_wrap=True)  # it names commands
    else:
        failures += dangers
        if not dangers:
            screen.print("policies of the broker: none that takes messages out of the queues")
    return failures


@app.command()
def recount(
    fix: Annotated[bool, typer.Option("--fix", help="Set what drifted to the recount.")] = False,
    json: Json = False,
) -> None:
    """Recount every operation's device operations, and look for rows that belong to nothing; exit 3 on drift.

    Histories are compared with the reports that they are of, as far as those were not pruned.
    """
    count, drifted = run_async(_recount(Settings.load(), fix))
    if json:
        print_json({"operations": count, "drifted": [asdict(drift) for drift in drifted]})
    else:
        for drift in drifted:
            for line in _told(drift):
                screen.print(line)
        verdict = f"{len(drifted):,} drifted{', now fixed' if fix else ''}" if drifted else "all counters agree"
        screen.print(f"operations recounted: {count:,}; {verdict}")
    if drifted and not fix:
        raise typer.Exit(DRIFT)


async def _recount(settings: Settings, fix: bool) -> tuple[int, list[Drift]]:
    async with ready_database(settings) as opened:
        count, drifted = await find_drift(opened)
        if fix:
            await fix_drift(opened, drifted)
        try:
            await keep_recount(opened, 0 if fix else len(drifted))
        except DBAPIError as error:  # a standby can be recounted, and keeps nothing
            notices.print(f"metrics will not tell of this recount: {errors.explain(error)}", style="yellow")
    return count, drifted


def _told(drift: Drift) -> Iterator[str]:
    if drift.stored is None:
        number = drift.actual["resolved_device_count"]
        yield f"operation {drift.operation_id}: is missing, and has {number:,} device operations"
        return
    whose = "" if drift.operation_id is None else f"operation {drift.operation_id}: "
    for name, stored in drift.stored.items():
        if stored != drift.actual[name]:
            yield f"{whose}{name} is {_number(stored)}, a recount gives {_number(drift.actual[name])}"


def _number(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


@app.command()
def prune(json: Json = False) -> None:
    """Remove what the settings DEVICEOPS_KEEP_… no longer keep, in small transactions beside running workers."""
    settings = Settings.load()
    retention = Retention(
        closed=_days(settings.keep_dead_letters),
        bodies=_days(settings.keep_bodies),
        activity=_days(settings.keep_activity),
    )
    configure_logging(settings)
    pruned = run_async(prune_past(settings, retention))
    if json:
        print_json(pruned)
    elif retention == Retention():
        screen.print("everything is kept for ever: set DEVICEOPS_KEEP_… (see `deviceops check`)")
    else:
        screen.print(tables.numbers(pruned))


async def prune_past(settings: Settings, retention: Retention) -> dict[str, int]:
    """Prune with a progress bar; `dead-letters prune` does it too."""
    async with ready_database(settings) as opened:
        with tables.counting("pruning", None) as progress:
            return await retention.prune(opened, progress)


def _days(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)
