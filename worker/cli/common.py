"""Shared by commands: logging, a ready database, the event loop, output."""

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

from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.log_writer import StandardError
from worker.model.text import clean, shown
from worker.store import database, schema, sqlite
from worker.store.database import Database

Result = TypeVar("Result")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

UNLIMITED = 10_000
"""Width where the output is not a terminal: lines are not wrapped."""


class _Piped:
    """Standard output that is not a terminal: without trailing spaces."""

    encoding = property(lambda _: sys.stdout.encoding)

    def write(self, text: str) -> int:
        """Write whole lines."""
        return sys.stdout.write("\n".join(line.rstrip(" ") for line in text.split("\n")))

    def flush(self) -> None:
        """Write what is in the buffer."""
        sys.stdout.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return False

    def fileno(self) -> int:
        """The descriptor of standard output."""
        return sys.stdout.fileno()


def _screen() -> Console:
    if sys.stdout.isatty():
        return Console(markup=False, highlight=False)
    width = None if "COLUMNS" in os.environ else UNLIMITED
    return Console(markup=False, highlight=False, width=width, file=_Piped())  # type: ignore[arg-type]  # as below


screen = _screen()
"""Standard output, for people."""
notices = Console(file=StandardError(), markup=False)  # type: ignore[arg-type]  # it has the methods that are used
"""Standard error, for progress and hints."""


def run_async(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine on a fast event loop."""
    return uvloop.run(main)


@asynccontextmanager
async def ready_database(
    settings: Settings, limit: float | None = None, *, for_batches: bool = False, creates: bool = False
) -> AsyncIterator[Database]:
    """The database with the schema that this code expects; failures are one-line DeviceopsErrors.

    `limit` is how many seconds a transaction may take, None for any number; `for_batches` is as for `Database`.
    `creates` is whether an SQLite file that does not exist is made, which what only reads never does.
    """
    if not creates and sqlite.is_new(settings.sqlalchemy_url):
        raise DeviceopsError(_does_not_exist(settings))
    async with database.opened(
        settings,
        answer_timeout=limit,
        limit=limit,
        for_batches=for_batches,
    ) as opened:
        await schema.require_current_schema(opened)
        yield opened


def log_database(settings: Settings) -> None:
    """Log which database is used. Call it before the database is opened, which creates an SQLite file."""
    import structlog  # here, as commands that only read log nothing

    url = settings.sqlalchemy_url
    file = {} if (path := sqlite.file_of(url)) is None else {"file": str(path.absolute())}
    structlog.get_logger().info(
        "using the database",
        database=database.shown(url),
        **file,
        is_default=_is_default(settings),
        is_new=sqlite.is_new(url),
    )


def _is_default(settings: Settings) -> bool:
    return "database_url" not in settings.model_fields_set


def _does_not_exist(settings: Settings) -> str:
    path = sqlite.file_of(settings.sqlalchemy_url)
    assert path is not None
    why = f", the default, as {variable('database_url')} is not set," if _is_default(settings) else ""
    return (
        f"database {path.absolute()}{why} has nothing in it yet: `deviceops migrate` makes it, as `run`, "
        "`ingest`, `serve` and `dead-letters import` do"
    )


def utf8(text: str) -> str:
    """Parse an argument as text. Raises BadParameter on bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{shown(text)} is not UTF-8") from None
    return text


utf8.__name__ = "text"  # --help shows it as the type of an argument

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def confirm(question: str, *, yes: bool, no: str = "nothing was removed") -> None:
    """On a terminal, ask before a permanent change. Raises DeviceopsError with the text `no` after a no."""
    if yes or sys.stdin is None or not sys.stdin.isatty():
        return
    if not typer.confirm(question, err=True):
        raise DeviceopsError(no)


def actor() -> str:
    """The operating system's user who runs the command, and the user who called sudo."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = str(os.getuid())
    caller = os.environ.get("SUDO_USER")
    named = f"{caller} as {user}" if caller else user
    return clean(named.encode(errors="replace").decode())  # a name on Unix is any bytes


def print_json(document: object) -> None:
    """Print one JSON document; times end in Z, and text is not escaped."""
    sys.stdout.write(pydantic_core.to_json(document, indent=2).decode() + "\n")


def configure_logging(settings: Settings) -> None:
    """Configure logging from the settings."""
    from worker.cli import log_format

    log_format.configure(settings.log_level, settings.log_format)
