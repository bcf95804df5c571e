"""Commands import what they use: a short one ends before a heavy library would be loaded."""

import re

import pytest

from tests.support.command import Deviceops

OF_BROKER = {"aio_pika", "aiormq", "pamqp"}
OF_SERVER = {"fastapi", "starlette", "uvicorn", "prometheus_client", "humanize"}
OF_WORK = {"alembic", "opentelemetry", "structlog", "tenacity"}
OF_ALL = {"asyncpg", "pydantic", "pydantic_settings", "sqlalchemy", "transitions", "uvloop", "yarl"}


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        (("--help",), OF_BROKER | OF_SERVER | OF_WORK | OF_ALL),
        (("dead-letters", "--help"), OF_BROKER | OF_SERVER | OF_WORK | OF_ALL),
        (("status",), OF_BROKER | OF_SERVER | OF_WORK | {"asyncpg"}),
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
