"""The table of commands, which are imported when they are called."""

import pytest
import typer
from typer.core import TyperGroup

from worker.cli import app
from worker.cli.lazy import LazyGroup


def groups() -> list[LazyGroup]:
    main = typer.main.get_command(app)
    assert isinstance(main, LazyGroup)
    return [main, *(sub for name in main.places if isinstance(sub := main.load(name), LazyGroup))]


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.name)
def test_the_table_of_commands_says_what_their_modules_say(group: LazyGroup) -> None:
    for name, place in group.places.items():
        command = group.load(name)
        own_name = command.name if isinstance(command, TyperGroup) else command.callback.__name__.rstrip("_")
        assert own_name == name
        assert command.help.split("\n\n")[0].replace("\n", " ") == place.help
