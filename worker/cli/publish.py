"""The command that sends JSON lines to the broker: publish."""

from collections.abc import Sequence
from contextlib import nullcontext

import typer

from worker import files
from worker.amqp.connection import connected
from worker.amqp.publisher import Destination
from worker.amqp.publisher import publish as publish_messages
from worker.amqp.topology import Topology
from worker.cli.common import configure_logging, run_async, screen
from worker.cli.feed import Source, feed
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.messages import MAX_BODY, Message
from worker.tracing import tracing

app = typer.Typer(add_completion=False)


@app.command()
def publish(source: Source) -> None:
    """Send JSON lines to the exchange; each counts once the broker has confirmed it."""
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_publish(settings, source))
    screen.print(f"{count:,} messages published to {settings.topology_prefix}")


async def _publish(settings: Settings, source: str) -> int:
    count = 0
    with files.readable(source) as stream:
        async with tracing(settings) as tracer, connected(settings) as connection:
            destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)

            async def process(messages: Sequence[Message]) -> None:
                nonlocal count
                if any(len(message.body) > MAX_BODY for message in messages):
                    raise DeviceopsError(
                        f"{source}: has a message larger than {MAX_BODY:,} bytes, which no worker reads"
                    )
                with nullcontext(messages) if tracer is None else tracer.sending(messages) as traced:
                    await publish_messages(destination, traced)
                count += len(messages)

            await feed(stream, source, settings.batch_size, process)
    return count
