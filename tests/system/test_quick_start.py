"""Commands import what they use: a short one ends before a heavy library would be loaded."""

import re

import pytest
import typer
from typer.core import TyperGroup

from tests.support.command import Deviceops
from worker.cli import app
from worker.cli.lazy import LazyGroup

OF_BROKER = {"aio_pika", "aiormq", "pamqp"}
OF_SERVER = {"fastapi", "starlette", "uvicorn", "prometheus_client", "humanize"}
OF_WORK = {"alembic", "opentelemetry", "structlog", "tenacity"}
OF_ALL = {"asyncpg", "pydantic", "pydantic_settings", "sqlalchemy", "transitions", "uvloop", "yarl"}


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


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        (("--help",), OF_BROKER | OF_SERVER | OF_WORK | OF_ALL),
        (("dead-letters", "--help"), OF_BROKER | OF_SERVER | OF_WORK | OF_ALL),
        (("status",), OF_BROKER | OF_SERVER | OF_WORK),
        (("device", *["00000000-0000-4000-8000-000000000000"] * 2), OF_BROKER | OF_SERVER | OF_WORK),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_short_command_imports_no_heavy_library_that_it_does_not_use(
    deviceops_on_sqlite: Deviceops, command: tuple[str, ...], spared: set[str]
) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines="")
    done = deviceops_on_sqlite.with_environment(PYTHONPROFILEIMPORTTIME="1")(*command)
    imported = {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.M)}
    assert "worker" in imported
    assert imported & spared == set()
