"""Commands of the HTTP API: serve, token create."""

from shlex import quote
from typing import Annotated

import typer
from pydantic_core import to_json

from worker.cli.common import (
    Json,
    configure_logging,
    log_database,
    print_json,
    ready_database,
    run_async,
    screen,
    utf8,
)
from worker.config import api_tokens
from worker.config.api_tokens import Scope
from worker.config.secret_files import PREFIX
from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.store import database

LOCK_TIMEOUT = 10
"""Seconds that a call waits for what another one holds, such as a cancellation of many devices."""

app = typer.Typer()
token_app = typer.Typer(no_args_is_help=True)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="Listen on this address, not the setting's.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Listen on this port; 0 for any.")] = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C; its documentation is at /docs."""
    settings = Settings.load()
    given = {name: value for name, value in (("http_host", host), ("http_port", port)) if value is not None}
    configure_logging(settings)
    run_async(_serve(settings.model_copy(update=given)))


async def _serve(settings: Settings) -> None:
    from worker.api import server  # here, because every command would pay for it and one serves

    limit = settings.database_timeout
    log_database(settings)
    async with (
        ready_database(settings, limit, creates=True) as reading,
        database.opened(
            settings,
            lock_timeout=LOCK_TIMEOUT,
            answer_timeout=limit,
            limit=limit,
            beside=reading,
        ) as writing,
    ):
        await server.serve(settings, reading, writing)


@token_app.callback()
def token() -> None:
    """Tokens of the HTTP API."""


@token_app.command()
def create(
    name: Annotated[
        str, typer.Argument(parser=utf8, metavar="NAME", help="Who has it; kept with what is done with it.")
    ],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it for more.")],
    json: Json = False,
) -> None:
    """Make a token and print it once, with what to put into DEVICEOPS_API_TOKENS; it is kept nowhere."""
    name = name.strip()
    if not 1 <= len(name) <= 255:
        raise SettingsError("NAME: a name has 1 to 255 characters")
    known = Settings.load().api_tokens or {}
    text, made = api_tokens.create(frozenset(scope))
    setting = to_json({**known, name: made}).decode()
    if json:
        print_json({"name": name, "token": text, "setting": setting})
        return
    screen.print("The token, which is shown this once:")
    print(text, end="\n\n")  # noqa: T201  # to be copied, as the setting is: no line of it may be broken
    if name in known:
        screen.print(f"It takes the place of the token that {name} had.")
    screen.print(f"The setting, which has {len({*known, name})} of them:")
    print(f"{PREFIX}API_TOKENS={quote(setting)}")  # noqa: T201
