"""The commands about tokens of the HTTP API: `deviceops token`."""

from shlex import quote
from typing import Annotated

import typer
from pydantic_core import to_json

from worker.cli import tables
from worker.cli.common import Json, notices, print_json, screen, utf8
from worker.config import api_tokens
from worker.config.api_tokens import Scope
from worker.config.secret_files import PREFIX
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.model.text import counted, shown

WARNING = (
    "warning: no token is left; with this setting `deviceops serve` requires none, and answers any caller on this "
    "machine, no other"
)

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def token() -> None:
    """Tokens of the HTTP API."""


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(parser=utf8, metavar="NAME", help="Name of its holder, recorded with what it is used for."),
    ],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it for more.")],
    json: Json = False,
) -> None:
    """Create a token and print it once, with the value for DEVICEOPS_API_TOKENS; it is stored nowhere."""
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
    print(text, end="\n\n")  # noqa: T201  # to be copied, as the setting is: not wrapped
    if name in known:
        screen.print(f"It takes the place of the token that {name} had.")
    screen.print(f"The setting, which has {counted(len({*known, name}), 'token')}:")
    print(f"{PREFIX}API_TOKENS={quote(setting)}")  # noqa: T201


@app.command("list")
def list_(json: Json = False) -> None:
    """List the tokens of DEVICEOPS_API_TOKENS by name, with their scopes; the tokens themselves are not stored."""
    tokens = Settings.load().api_tokens
    known = tokens or {}
    if json:
        print_json([{"name": name, "scopes": sorted(known[name].scopes)} for name in sorted(known)])
        return
    listing = tables.table("name", "scopes")
    for name in sorted(known):
        listing.add_row(tables.plain(name), ", ".join(sorted(known[name].scopes)))
    why = "DEVICEOPS_API_TOKENS is not set" if tokens is None else "DEVICEOPS_API_TOKENS is set and has none"
    screen.print(listing if known else f"no tokens: {why}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(parser=utf8, metavar="NAME", help="Name of its holder.")],
    json: Json = False,
) -> None:
    """Print the value for DEVICEOPS_API_TOKENS without a token; `serve` rejects it after a restart."""
    known = Settings.load().api_tokens or {}
    if name not in known:
        raise DeviceopsError(f"no token has the name {shown(name)}: `deviceops token list` names them")
    remaining = {other: token for other, token in known.items() if other != name}
    setting = to_json(remaining).decode()
    if not remaining:
        notices.print(WARNING, style="yellow", soft_wrap=True)
    if json:
        print_json({"name": name, "setting": setting})
        return
    screen.print("The setting without it; the token is refused once `deviceops serve` has restarted with it:")
    print(f"{PREFIX}API_TOKENS={quote(setting)}")  # noqa: T201
