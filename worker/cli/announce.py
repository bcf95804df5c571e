"""The command that sends an announcement: announce."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import typer
from pydantic_core import to_json

from worker.amqp.connection import connected
from worker.amqp.publisher import Destination, publish
from worker.amqp.topology import Topology
from worker.cli.common import Json, actor, configure_logging, print_json, run_async, screen, utf8
from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.model.messages import ANNOUNCEMENT, Message, Rejected
from worker.model.parsing import parse

app = typer.Typer(add_completion=False)


@app.command()
def announce(
    operation_type: Annotated[
        str,
        typer.Argument(
            parser=utf8, metavar="OPERATION_TYPE", help="What is done, such as CONVERGE; case matters."
        ),
    ],
    device: Annotated[list[UUID] | None, typer.Option(help="A device's id; repeat it for more.")] = None,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="How many devices there will be, if their ids come otherwise."),
    ] = None,
    id_: Annotated[UUID | None, typer.Option("--id", help="The operation's id; a new one if left out.")] = None,
    reason: Annotated[str | None, typer.Option(parser=utf8, metavar="TEXT", help="What it is for.")] = None,
    json: Json = False,
) -> None:
    """Send an announcement: an operation, and the devices that it is for.

    It is confirmed by the broker, and registered when `deviceops run` takes it; `publish --type` sends whole
    announcements.
    """
    settings = Settings.load()
    configure_logging(settings)
    operation_id = id_ or uuid4()
    given = {"device_ids": device or None, "device_count": count, "reason": reason}
    body = {
        "id": operation_id,
        "operation_type": operation_type,
        "created_by": actor(),
        **{name: value for name, value in given.items() if value is not None},
    }
    message = Message(to_json(body), datetime.now(UTC), type=ANNOUNCEMENT)
    for item in parse(message):
        if isinstance(item, Rejected):
            raise SettingsError(item.detail)
    run_async(_send(settings, message))
    if json:
        print_json({"operation_id": operation_id})
    else:
        screen.print(f"announcement of operation {operation_id} published to {settings.topology_prefix}")


async def _send(settings: Settings, message: Message) -> None:
    async with connected(settings) as connection:
        destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
        await publish(destination, [message])
