"""The command that brings the schema up to date, and copies SQLite to PostgreSQL: migrate."""

from collections.abc import Mapping
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy import make_url

from worker.cli import tables
from worker.cli.common import ready_database, run_async, screen
from worker.config import urls
from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.store import copy_database, database, schema, sqlite
from worker.store.recount import find_drift

app = typer.Typer(add_completion=False)


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
