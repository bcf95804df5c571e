"""The command that consumes: run."""

import asyncio
import signal
from typing import Annotated

import structlog
import typer

from worker import service
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, run_async, screen
from worker.config.settings import Settings
from worker.model.outcomes import Tally

_log = structlog.get_logger()

app = typer.Typer(add_completion=False)


@app.command()
def run(
    until_idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.1, help="Exit when nothing has been delivered for that many seconds."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Consume reports from RabbitMQ until SIGTERM or Ctrl-C, or until idle."""
    settings = Settings.load()
    configure_logging(settings)
    tally = run_async(_run(settings, until_idle))
    _log.info("stopped", **tally.document())
    if json or screen.is_terminal:
        tables.show_tally(tally, json)


async def _run(settings: Settings, until_idle: float | None) -> Tally:
    log_database(settings)
    return await service.run(settings, _stop_on_signals(), until_idle)


def _stop_on_signals() -> asyncio.Event:
    """Set when a signal asks to stop. A second signal has its usual effect, and ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def begin_to_stop() -> None:
        _log.info("stopping: a signal asks for it; a second one ends the process at once")
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, begin_to_stop)
    return stop
