"""The command that sends an announcement: announce."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import typer
from pydantic_core import to_json

from statemachine import AbortAction, Kind
from worker.amqp.connection import connected
from worker.amqp.publisher import Destination, publish
from worker.amqp.topology import Topology
from worker.cli.common import Json, actor, configure_logging, print_json, run_async, screen, utf8
from worker.cli.times import age
from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.model.messages import ANNOUNCEMENT, Message, Rejected
from worker.model.parsing import parse
from worker.model.text import shown

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
    timeout: Annotated[
        list[str] | None,
        typer.Option(
            parser=utf8,
            metavar="KIND=DURATION",
            help="When a device operation is timed out: pending, in_progress, step or total, such as step=15m; "
            "repeat it for more.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(parser=utf8, metavar="TIME", help="When all that is not settled is timed out (RFC 3339)."),
    ] = None,
    abort_percent: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="Abort the operation when this percentage of the settled device operations has failed.",
        ),
    ] = None,
    abort_settled: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --abort-percent: not before N have settled; 20 if left out."),
    ] = None,
    abort_action: Annotated[
        AbortAction | None,
        typer.Option(help="With --abort-percent: cancel what is open, which is the default, or notify only."),
    ] = None,
    json: Json = False,
) -> None:
    """Send an announcement: an operation, and the devices that it is for.

    It is confirmed by the broker, and registered when `deviceops run` takes it; `publish --type` sends whole
    announcements.
    """
    settings = Settings.load()
    configure_logging(settings)
    operation_id = id_ or uuid4()
    given = {
        "device_ids": device or None,
        "device_count": count,
        "reason": reason,
        "timeouts": _timeouts(timeout or []) or None,
        "deadline": deadline,
        "abort": _abort(abort_percent, abort_settled, abort_action),
    }
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


def _timeouts(given: Sequence[str]) -> dict[str, float]:
    """Seconds by kind. Raises BadParameter."""
    found, kinds = {}, [kind for kind in Kind if kind is not Kind.DEADLINE]
    for each in given:
        kind, is_pair, duration = each.partition("=")
        if not is_pair:
            raise typer.BadParameter(f"--timeout: {shown(each)} is not KIND=DURATION, such as step=15m")
        if kind not in kinds:
            raise typer.BadParameter(f"--timeout: {shown(kind)} is none of the kinds {', '.join(kinds)}")
        try:
            found[kind] = age(duration).total_seconds()
        except typer.BadParameter as error:
            raise typer.BadParameter(f"--timeout {kind}: {error.message}") from None
    return found


def _abort(percent: float | None, settled: int | None, action: AbortAction | None) -> dict[str, object] | None:
    """The threshold as announcements have it. Raises BadParameter."""
    if percent is None:
        if settled is not None or action is not None:
            raise typer.BadParameter("--abort-settled and --abort-action go with --abort-percent")
        return None
    return {"failed_percent": percent, "min_settled": settled or 20, "action": action or AbortAction.CANCEL}


async def _send(settings: Settings, message: Message) -> None:
    async with connected(settings) as connection:
        destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
        await publish(destination, [message])
