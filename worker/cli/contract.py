"""The command that prints what producers may send, and what listeners get: contract."""

from enum import StrEnum
from typing import Annotated

import typer

from worker.amqp.topology import Topology
from worker.asyncapi import document
from worker.cli.common import print_json
from worker.cli.message_types import CHOICES, message_type
from worker.config.settings import Settings
from worker.model.changes import ChangeType
from worker.model.messages import REPORT

app = typer.Typer(add_completion=False)


class ContractFormat(StrEnum):
    """Formats of the contract."""

    ASYNCAPI = "asyncapi"
    JSON_SCHEMA = "json-schema"


def body_type(text: str) -> str:
    """Parse the name of a type of messages or changes. Raises BadParameter."""
    return message_type(text, [each.value for each in ChangeType])


@app.command()
def contract(
    form: Annotated[
        ContractFormat, typer.Option("--format", help="AsyncAPI 3, or JSON Schema 2020-12.")
    ] = ContractFormat.ASYNCAPI,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            parser=body_type,
            metavar="|".join([CHOICES, *ChangeType]),
            help="For JSON Schema: the type of the bodies, of messages or of changes.",
        ),
    ] = None,
) -> None:
    """Print, as JSON, what producers may send and listeners get: for generators and validators."""
    settings = Settings.load()
    if form is ContractFormat.JSON_SCHEMA:
        print_json(document.json_schema(type_ or REPORT))
        return
    if type_ is not None:
        raise typer.BadParameter("--type goes with --format json-schema; AsyncAPI has all types")
    hosts = [f"{node.host}:{node.port}" for node in settings.brokers]
    print_json(document.asyncapi(Topology(settings.topology_prefix), hosts, settings.brokers[0].scheme))
