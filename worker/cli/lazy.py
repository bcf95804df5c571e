"""Groups of commands that import a command's module when it is called: `deviceops --help` imports none of them."""

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Place(NamedTuple):
    """The module that has a command as its `app`, and the command's line on the page of its group."""

    module: str
    help: str


class LazyGroup(TyperGroup):
    """A group whose commands are known by name and one line of help until one of them is called."""

    places: ClassVar[Mapping[str, Place]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    """Other names that a command is called by; no page lists them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=place.help) for name, place in self.places.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that arguments call, and load it."""
        name, _, rest = super().resolve_command(ctx, [self.aliases.get(args[0], args[0]), *args[1:]])
        return name, None if name is None else self.load(name), rest

    def load(self, name: str) -> Any:
        """Import a command's module, and give the command."""
        app: typer.Typer = import_module(self.places[name].module).app
        command = typer.main.get_command(app)
        command.name = name
        if not isinstance(command, TyperGroup) and not gc.isenabled():  # see `worker.__main__`
            gc.freeze()
            gc.enable()
        return command
