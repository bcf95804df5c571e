"""Commands of the HTTP API: serve, token create."""

from typing import Annotated

import typer
from pydantic_core import to_json
from rich.text import Text

from worker import tokens
from worker.cli.wiring import Json, configure_logging, print_json, ready_database, run_async, screen
from worker.errors import SettingsError
from worker.settings import PREFIX, Settings
from worker.tokens import Scope

app = typer.Typer()
token_app = typer.Typer(help="Tokens of the HTTP API.", no_args_is_help=True)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Listen on this address, not the setting's.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Listen on this port; 0 for any.")] = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C; its documentation is at /docs."""
    settings = Settings.load()
    given = {name: value for name, value in (("http_host", host), ("http_port", port)) if value is not None}
    configure_logging(settings.log_level)
    run_async(_serve(settings.model_copy(update=given)))


async def _serve(settings: Settings) -> None:
    from worker.api import serving  # here, because every command would pay for it and one serves

    async with ready_database(settings) as database:
        await serving.serve(settings, database)


@token_app.callback()
def token() -> None:
    """Tokens of the HTTP API."""


@token_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who has it; kept with what is done with it.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it for more.")],
    json: Json = False,
) -> None:
    """Make a token and print it once, with what to put into DEVICEOPS_API_TOKENS; it is kept nowhere."""
    if not 1 <= len(name.strip()) <= 255:
        raise SettingsError("NAME: a name has 1 to 255 characters")
    known = Settings.load().api_tokens or {}
    text, made = tokens.create(frozenset(scope))
    setting = to_json({**known, name: made}).decode()
    if json:
        print_json({"name": name, "token": text, "setting": setting})
        return
    screen.print("The token, which is shown this once:", Text(text, style="bold"), "", sep="\n")
    screen.print(f"The setting, with it and the {len(known)} tokens that there are:")
    print(f"{PREFIX}API_TOKENS='{setting}'")  # noqa: T201  # to be copied: no line of it may be broken
