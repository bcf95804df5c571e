"""A name that looks like a setting and is none ends every command: the setting that was meant has its default."""

from pathlib import Path

import pytest

from tests.support.command import Deviceops

SOME_ID = "00000000-0000-4000-8000-000000000000"
COMMANDS = [
    ("run", "--until-idle", "0.1"),
    ("ingest", "-"),
    ("publish", "-"),
    ("status",),
    ("devices", SOME_ID),
    ("device", SOME_ID, SOME_ID),
    ("dead-letters", "list"),
    ("dead-letters", "replay", "--all"),
    ("dead-letters", "discard", "--all", "--because", "x"),
    ("dead-letters", "export"),
    ("recount",),
    ("migrate",),
    ("check",),
    ("prune",),
    ("serve",),
    ("token", "create", "x", "--scope", "read:device"),
    ("simulate",),
    ("diagram",),
    ("contract",),
    ("contract", "--format", "json-schema"),
    ("demo",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_misspelt_variable_and_makes_no_database(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    misspelt = Deviceops(
        tmp_path, {"databse_url": "postgresql://127.0.0.1:1/prod", "amqp_url": "amqp://127.0.0.1:1/"}
    )
    done = misspelt(*command, lines="")
    assert done.returncode == 2
    complaint = "DEVICEOPS_DATABSE_URL is not a setting: did you mean DEVICEOPS_DATABASE_URL?"
    assert done.stderr == f"deviceops: {complaint}\n"
    assert done.stdout == ""
    assert not list(tmp_path.glob("*.db"))
