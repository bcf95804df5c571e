"""The commands about exchanges and queues on the broker: `deviceops broker`."""

import sys
from typing import Annotated

import typer

from worker.amqp.connection import connected
from worker.amqp.topology import Topology
from worker.cli.common import Yes, configure_logging, confirm, run_async, screen
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def broker() -> None:
    """The exchanges and queues on the broker."""


@app.command()
def remove(
    force: Annotated[bool, typer.Option("--force", help="Also if queues have messages, which are lost.")] = False,
    yes: Yes = False,
) -> None:
    """Remove the exchanges and queues of DEVICEOPS_TOPOLOGY_PREFIX; `run` declares them again."""
    settings = Settings.load()
    configure_logging(settings)
    prefix = settings.topology_prefix
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise SettingsError("--yes is needed where no terminal can answer")
    confirm(f"Remove the exchanges and queues {prefix}, {prefix}.… from the broker?", yes=yes)
    if run_async(_remove(settings, force)):
        screen.print(f"removed from the broker: exchanges and queues of {prefix}")
    else:
        screen.print(f"nothing to remove: the broker has no exchanges and queues of {prefix}")


async def _remove(settings: Settings, force: bool) -> bool:
    """Whether there was anything to remove."""
    topology = Topology(settings.topology_prefix)
    async with connected(settings) as connection:
        found = await topology.waiting(connection)
        if not force and (held := {name: count for name, count in found.items() if count}):
            named = ", ".join(f"{name} has {count:,}" for name, count in held.items())
            raise DeviceopsError(f"queues have messages: {named}; nothing was removed (--force removes them too)")
        if not found and not await topology.existing_exchanges(connection):
            return False
        await topology.delete(connection)
        return True
