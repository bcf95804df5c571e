"""The command that prints what producers may send: contract."""

from enum import StrEnum
from typing import Annotated

import typer

from worker.amqp.topology import Topology
from worker.asyncapi import document
from worker.cli.common import print_json
from worker.cli.message_types import CHOICES, message_type
from worker.config.settings import Settings
from worker.model.messages import REPORT

app = typer.Typer(add_completion=False)


class ContractFormat(StrEnum):
    """Formats of the contract."""

    ASYNCAPI = "asyncapi"
    JSON_SCHEMA = "json-schema"


@app.command()
def contract(
    form: Annotated[
        ContractFormat, typer.Option("--format", help="AsyncAPI 3, or JSON Schema 2020-12.")
    ] = ContractFormat.ASYNCAPI,
    message_type: Annotated[
        str | None,
        typer.Option(
            "--type", parser=message_type, metavar=CHOICES, help="For JSON Schema: the message type of the bodies."
        ),
    ] = None,
) -> None:
    """Print, as JSON, what producers may send: for generators, validators and documentation."""
    settings = Settings.load()
    if form is ContractFormat.JSON_SCHEMA:
        print_json(document.json_schema(message_type or REPORT))
        return
    if message_type is not None:
        raise typer.BadParameter("--type goes with --format json-schema; AsyncAPI has all types")
    hosts = [f"{node.host}:{node.port}" for node in settings.brokers]
    print_json(document.asyncapi(Topology(settings.topology_prefix), hosts, settings.brokers[0].scheme))
