"""What every command needs: settings, logging, a database that is ready, an event loop."""

import os
import pwd
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import pydantic_core
import typer
import uvloop
from rich.console import Console

from worker.cli import logs
from worker.contract import clean
from worker.settings import Settings
from worker.store import database, schema
from worker.store.database import Database

Result = TypeVar("Result")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

screen = Console(markup=False, highlight=False)
"""Standard output, for people."""
notices = Console(stderr=True, markup=False)
"""Standard error, for progress and hints."""


def run_async(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine on a fast event loop."""
    return uvloop.run(main)


@asynccontextmanager
async def ready_database(
    settings: Settings, limit: float | None = None, *, for_batches: bool = False
) -> AsyncIterator[Database]:
    """The database with the schema that this code expects; failures are one-line DeviceopsErrors.

    `limit` is how many seconds a transaction may take, None for any number; `for_batches` is as for `Database`.
    """
    async with database.opened(
        settings,
        answer_timeout=limit,
        limit=limit,
        for_batches=for_batches,
    ) as opened:
        await schema.require_current_schema(opened)
        yield opened


def actor() -> str:
    """Who runs the command: the operating system's user, and who called sudo to be it."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = str(os.getuid())
    caller = os.environ.get("SUDO_USER")
    return clean(f"{caller} as {user}" if caller else user)


def print_json(document: object) -> None:
    """Print one JSON document; times end in Z, and text is not escaped."""
    sys.stdout.write(pydantic_core.to_json(document, indent=2).decode() + "\n")


def configure_logging(settings: Settings) -> None:
    """Log as the settings say."""
    logs.configure(settings.log_level, settings.log_format)
